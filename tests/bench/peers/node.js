// node's own server, three ways to stop it: node.js core | http-terminator | fastify
const http = require("node:http");

const how = process.argv[2];
const port = Number(process.env.PORT);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function* pieces() {
  for (let piece = 0; piece < 20; piece++) {
    yield "ok";
    await sleep(100);
  }
}

async function answer(request, response) {
  if (request.url === "/slow") await sleep(2000);
  if (request.url === "/stream") for await (const piece of pieces()) response.write(piece);
  response.end("ok");
}

if (how === "fastify") {
  const { Readable } = require("node:stream");
  const fastify = require("fastify")();
  fastify.get("/", async () => "ok");
  fastify.get("/slow", async () => sleep(2000).then(() => "ok"));
  fastify.get("/stream", (request, reply) => reply.send(Readable.from(pieces())));
  fastify.listen({ port, host: "127.0.0.1" });
  process.on("SIGTERM", () => fastify.close().then(() => process.exit(0)));
} else {
  const server = http.createServer(answer).listen(port, "127.0.0.1");
  if (how === "http-terminator") {
    const { createHttpTerminator } = require("http-terminator");
    const terminator = createHttpTerminator({ server });
    process.on("SIGTERM", () => terminator.terminate().then(() => process.exit(0)));
  } else {
    process.on("SIGTERM", () => server.close(() => process.exit(0)));
  }
}
