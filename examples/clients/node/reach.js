// What plain TCP tells of the way to the coordinator.
"use strict";

const dns = require("node:dns/promises");
const net = require("node:net");

const PROBE_TIMEOUT_MS = 2000;

// "HOST:PORT" or "[IPV6]:PORT" in its two parts.
function split(address) {
  const [, host, port] = /^\[?(.*?)\]?:(\d+)$/.exec(address) ?? [];
  if (port === undefined) throw new Error(`${address} is no HOST:PORT`);
  return { host, port: Number(port) };
}

// Whether nobody listens there: every address of the host refuses. Anything else, a timeout as well as a connection,
// tells nothing about who decides for the job meanwhile.
async function isRefused(address) {
  const { host, port } = split(address);
  const found = await dns.lookup(host, { all: true }).catch(() => []);
  const answers = await Promise.all(found.map((each) => probe(each.address, port)));
  return answers.length > 0 && answers.every((answer) => answer.refused);
}

// The address from which this machine reaches the coordinator: one that its other nodes are likely to reach as well.
// Undefined if it cannot be reached now.
async function ownAddress(address) {
  const { host, port } = split(address);
  return (await probe(host, port)).localAddress;
}

function probe(host, port) {
  return new Promise((resolve) => {
    const socket = net.connect({ host, port, timeout: PROBE_TIMEOUT_MS });
    const done = (answer) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => done({ localAddress: socket.localAddress }));
    socket.once("timeout", () => done({}));
    socket.once("error", (error) => done({ refused: error.code === "ECONNREFUSED" }));
  });
}

// A port that is free now. Nothing keeps it free: that is why this agent does not claim CAPABILITY_HOLDS_PORT.
function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once("error", reject);
    server.listen(0, () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

module.exports = { isRefused, ownAddress, freePort };
