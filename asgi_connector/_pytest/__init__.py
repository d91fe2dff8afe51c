"""What the pytest plugin does with a test: its settings, its journal, its files. Imported only when it is needed."""
