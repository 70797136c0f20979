// Prints a job, its nodes and its workers: node status.js HOST:PORT JOB [--watch]
//
// With --watch it follows the job until that is decided: what it is, then a line for each decision. Exit status: 0, 1 if
// the coordinator said no or could not be asked, 2 for a command line that makes no sense.
"use strict";

const { parseArgs } = require("node:util");
const { JobService, connect, call, reasonOf } = require("./protocol");
const { FLAGS, USAGE: SECURITY_USAGE, securityOf } = require("./security");
const { watch } = require("./watch");

const USAGE = `usage: node status.js HOST:PORT JOB [FLAGS]

  --watch                   follow the job until it is decided
${SECURITY_USAGE}`;

const PREFIX = /^(JOB_STATE|JOB_EVENT_KIND|NODE_STATE|AGENT_PHASE|WORKER_STATE)_/;

async function main(argv) {
  const { address, name, security, isWatching } = readArguments(argv);
  try {
    await (isWatching ? follow : show)(address, security, name);
  } catch (error) {
    console.error(`status: ${sentenceOf(error)}`);
    process.exitCode = 1;
  }
}

function readArguments(argv) {
  try {
    const options = { watch: { type: "boolean" }, ...FLAGS };
    const { values, positionals } = parseArgs({ args: argv, allowPositionals: true, options });
    if (positionals.length !== 2) throw new Error("it takes a coordinator and a job");
    const [address, job] = positionals;
    return { address, name: `jobs/${job}`, security: securityOf(values, address), isWatching: values.watch };
  } catch (error) {
    console.error(`status: ${error.message}\n${USAGE}`);
    return process.exit(2);
  }
}

async function show(address, security, name) {
  const stub = connect(JobService, address, security);
  try {
    const { job } = await call(stub, "GetJob", { name });
    console.log(lineOf(job));
    for await (const node of listed(stub, "ListNodes", "nodes", name)) {
      console.log(`  ${shortName(node)}: ${word(node.state)}, ${word(node.phase)}, ${node.agent_version}`);
    }
    for await (const worker of listed(stub, "ListWorkers", "workers", name)) {
      console.log(`  rank ${worker.rank} on ${worker.node}: ${word(worker.state)}, pid ${worker.pid}`);
    }
  } finally {
    stub.close();
  }
}

// Each line begins with the revision up to which it tells the story, so no line comes twice.
async function follow(address, security, name) {
  const broke = (error) => console.error(`status: the watch broke (${sentenceOf(error)}); trying again`);
  for await (const { revision, snapshot, events } of watch(address, security, name, broke)) {
    if (snapshot) console.log(`${revision} ${lineOf(snapshot)}`);
    for (const event of events) console.log(`${event.revision} ${word(event.kind)}: ${event.message}`);
  }
}

// Everything that a List method lists, page by page.
async function* listed(stub, method, field, parent) {
  let page_token = "";
  do {
    const page = await call(stub, method, { parent, page_token });
    yield* page[field];
    page_token = page.next_page_token;
  } while (page_token !== "");
}

function lineOf(job) {
  const round = job.round === undefined ? "no round yet" : `round ${job.round}`;
  const restarts = `restart ${job.restart_count} of ${job.spec.max_restarts}`;
  const outcome = job.outcome ? ` [${job.outcome.reason}]` : "";
  return `${job.name.replace("jobs/", "")}: ${word(job.state)}, ${round}, ${restarts}: ${job.message}${outcome}`;
}

const shortName = (node) => node.name.split("/").pop();

// JOB_STATE_RUNNING -> running. A value that this copy of the protos does not know comes as its number.
const word = (value) => String(value).replace(PREFIX, "").toLowerCase();

// The coordinator's reason and its sentence; or what the transport or a file says.
const sentenceOf = (error) => [reasonOf(error), error.details ?? error.message].filter(Boolean).join(": ");

main(process.argv.slice(2));
