from tests.conftest import session_to
async def test_smoke():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
    async with session_to(app) as s:
        async with s.get("/") as r:
            assert await r.read() == b"x"
