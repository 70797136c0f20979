// How a client shows who it is, and whom it believes to be the coordinator: TLS and a token. What is known of them are
// paths: the files are read anew for each connection, since they may be rotated while a program runs.
"use strict";

const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");

const USAGE = `  --tls-ca FILE             speak TLS with a coordinator whose certificate this authority signed
  --tls-cert FILE, --tls-key FILE
                            a certificate of one's own, if the coordinator asks for one
  --token-file FILE         the token for the coordinator; RALLYPOINT_TOKEN may be the token itself
                            (each from RALLYPOINT_TLS_CA, ..., RALLYPOINT_TOKEN_FILE if it is not given)`;

const NAMES = ["tls-ca", "tls-cert", "tls-key", "token-file"];
const FLAGS = Object.fromEntries(NAMES.map((name) => [name, { type: "string" }]));

// The paths that the flags or their variables name, "" for none. Throws what makes no sense, or cannot be read now.
function securityOf(values, address) {
  const variable = (name) => `RALLYPOINT_${name.toUpperCase().replaceAll("-", "_")}`;
  const security = Object.fromEntries(NAMES.map((name) => [name, values[name] ?? process.env[variable(name)] ?? ""]));
  if (!security["tls-cert"] !== !security["tls-key"]) throw new Error("--tls-cert and --tls-key go together");
  if (security["tls-cert"] && !security["tls-ca"]) throw new Error("--tls-cert needs --tls-ca");
  credentialsOf(security);
  if (tokenOf(security) && !security["tls-ca"] && !isLoopback(address)) {
    throw new Error(`the token would go to ${address} in plain text: give --tls-ca`);
  }
  return security;
}

function credentialsOf(security) {
  const read = (name) => (security[name] ? fs.readFileSync(security[name]) : null);
  if (!security["tls-ca"]) return grpc.credentials.createInsecure();
  return grpc.credentials.createSsl(read("tls-ca"), read("tls-key"), read("tls-cert"));
}

function tokenOf(security) {
  if (!security["token-file"]) return process.env.RALLYPOINT_TOKEN ?? "";
  return fs.readFileSync(security["token-file"], "latin1").trim();
}

// Puts the token on every call of a stub, streams included. grpc-js has call credentials too, but those want TLS.
function interceptorsOf(security) {
  const token = tokenOf(security);
  if (!token) return [];
  const start = (metadata, listener, next) => {
    metadata.set("authorization", `Bearer ${token}`);
    next(metadata, listener);
  };
  return [(options, nextCall) => new grpc.InterceptingCall(nextCall(options), { start })];
}

const isLoopback = (address) => /^(localhost|127\.[\d.]+|\[::1\]):\d+$/.test(address);

module.exports = { FLAGS, USAGE, securityOf, credentialsOf, interceptorsOf };
