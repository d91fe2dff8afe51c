// What Mermaid reads in sequence diagrams: node read.mjs NODE_MODULES
// On each line of the input is a diagram, as a JSON string; on each line of the output, what was read, or the error.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const directory = join(process.argv[2], "mermaid");
const description = JSON.parse(readFileSync(join(directory, "package.json"), "utf8"));
const { default: mermaid } = await import(pathToFileURL(join(directory, description.module)));

// What Mermaid does to the finished SVG: entities are kept from its parser, and are the browser's to decode.
const decode = (text) => text.replace(/ﬂ°°/g, "&#").replace(/ﬂ°/g, "&").replace(/¶ß/g, ";");

async function read(text) {
  await mermaid.parse(text);
  const { db, type } = await mermaid.mermaidAPI.getDiagramFromText(text);
  const kinds = Object.fromEntries(Object.entries(db.LINETYPE).map(([name, number]) => [number, name]));
  const participants = [...db.getActors().values()].map((each) => [each.name, each.type, decode(each.description)]);
  const messages = db.getMessages().map((each) => [each.from, kinds[each.type], each.to, decode(each.message)]);
  return { type, participants, messages };
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await read(JSON.parse(line)).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
