// The command line of agent.js.
"use strict";

const os = require("node:os");
const { parseArgs } = require("node:util");
const { fromMs } = require("./protocol");
const { FLAGS: SECURITY_FLAGS, USAGE: SECURITY_USAGE, securityOf } = require("./security");

const USAGE = `usage: node agent.js --coordinator HOST:PORT --job NAME [FLAGS] -- COMMAND [ARGUMENT...]

  --coordinator HOST:PORT   where the coordinator listens
  --job NAME                the job to take part in
  --node NAME               this node's name, unique in the job (default: the host name)
  --role NAME               the role of its worker (default: "default")
  --local-addr HOST         where the other nodes reach this one (default: the address that it reaches the
                            coordinator from)
${SECURITY_USAGE}
What all agents of the job have to agree on:
  --nnodes MIN[:MAX]        how many nodes a round has (default: 1)
  --max-restarts N          how many restarts the job may spend (default: 0)
  --lease-ttl S, --last-call-timeout S, --join-timeout S, --shutdown-timeout S
                            seconds (default: 30, 30, 600, 30)`;

const string = { type: "string" };
const DURATIONS = ["lease-ttl", "last-call-timeout", "join-timeout", "shutdown-timeout"];
const FLAGS = {
  coordinator: string,
  job: string,
  node: { ...string, default: os.hostname() },
  role: { ...string, default: "" },
  "local-addr": string,
  ...SECURITY_FLAGS,
  nnodes: { ...string, default: "1" },
  "max-restarts": { ...string, default: "0" },
  "lease-ttl": { ...string, default: "30" },
  ...Object.fromEntries(DURATIONS.slice(1).map((name) => [name, string])),
};

// Ends the process with status 2 if it makes no sense. What the coordinator checks is left to it.
function readOptions(args) {
  try {
    const { values, positionals } = parseArgs({ args, allowPositionals: true, options: FLAGS });
    for (const name of ["coordinator", "job"]) if (!values[name]) throw new Error(`--${name} is missing`);
    if (!/:\d+$/.test(values.coordinator)) throw new Error(`--coordinator: ${values.coordinator} is no HOST:PORT`);
    if (positionals.length === 0) throw new Error("there is no command to run");
    const { coordinator, job, node, role, "local-addr": localAddr } = values;
    const security = securityOf(values, coordinator);
    return { coordinator, security, job, node, role, localAddr, jobSpec: jobSpecOf(values), argv: positionals };
  } catch (error) {
    console.error(`agent: ${error.message}\n${USAGE}`);
    return process.exit(2);
  }
}

function jobSpecOf(values) {
  const [, min, max = min] = /^(\d+)(?::(\d+))?$/.exec(values.nnodes) ?? [];
  if (min === undefined) throw new Error(`--nnodes: ${values.nnodes} is neither MIN nor MIN:MAX`);
  const spec = { min_nodes: Number(min), max_nodes: Number(max), max_restarts: numberOf(values, "max-restarts") };
  for (const name of DURATIONS.filter((each) => values[each] !== undefined)) {
    spec[name.replaceAll("-", "_")] = fromMs(numberOf(values, name) * 1000);
  }
  return spec;
}

function numberOf(values, name) {
  const number = Number(values[name]);
  if (values[name] === "" || !(number >= 0)) throw new Error(`--${name}: ${values[name]} is no number, 0 or more`);
  return number;
}

module.exports = { readOptions };
