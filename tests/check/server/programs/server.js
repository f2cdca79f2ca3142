// A node server as its documentation has it: SIGTERM closes it, and it exits when it is closed.
// With the argument "dies" nobody has thought of SIGTERM.
const http = require("node:http");

const server = http.createServer((request, response) => {
  setTimeout(() => response.end("ok"), request.url === "/slow" ? 1000 : 0);
});
server.listen(process.env.PORT, "127.0.0.1");
if (process.argv[2] !== "dies") {
  process.on("SIGTERM", () => server.close(() => process.exit(0)));
}
