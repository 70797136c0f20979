// Prints a job, its nodes and its workers: node status.js HOST:PORT JOB [--watch]
//
// With --watch it goes on asking until the job is decided, and prints what changed. Exit status: 0, 1 if the coordinator
// said no or could not be asked, 2 for a command line that makes no sense.
"use strict";

const { setTimeout: wait } = require("node:timers/promises");
const { parseArgs } = require("node:util");
const { grpc, JobService, connect, call, reasonOf } = require("./protocol");

const USAGE = "usage: node status.js HOST:PORT JOB [--watch]";
const ASK_EVERY_MS = 200;

async function main(argv) {
  const { values, positionals } = readArguments(argv);
  const stub = connect(JobService, positionals[0]);
  try {
    await (values.watch ? watch : show)(stub, `jobs/${positionals[1]}`);
  } catch (error) {
    if (error.code === undefined) throw error;
    console.error(`status: ${[reasonOf(error), error.details].filter(Boolean).join(": ")}`);
    process.exitCode = 1;
  } finally {
    stub.close();
  }
}

function readArguments(argv) {
  try {
    const parsed = parseArgs({ args: argv, allowPositionals: true, options: { watch: { type: "boolean" } } });
    if (parsed.positionals.length === 2) return parsed;
  } catch (error) {
    console.error(`status: ${error.message}`);
  }
  console.error(USAGE);
  process.exit(2);
}

async function show(stub, name) {
  const { job } = await call(stub, "GetJob", { name });
  console.log(lineOf(job));
  for await (const node of listed(stub, "ListNodes", "nodes", name)) {
    console.log(`  ${shortName(node)}: ${word(node.state)}, ${word(node.phase)}, ${node.agent_version}`);
  }
  for await (const worker of listed(stub, "ListWorkers", "workers", name)) {
    console.log(`  rank ${worker.rank} on ${worker.node}: ${word(worker.state)}, pid ${worker.pid}`);
  }
}

// Until the job is decided. A coordinator that is away is waited for: what it answers when it is back is what counts.
async function watch(stub, name) {
  for (let last = ""; ; await wait(ASK_EVERY_MS)) {
    const { job } = await call(stub, "GetJob", { name }).catch(unlessUnavailable);
    if (job === undefined) continue;
    const line = job.outcome ? `${lineOf(job)} [${job.outcome.reason}]` : lineOf(job);
    if (line !== last) console.log((last = line));
    if (job.outcome) return;
  }
}

function unlessUnavailable(error) {
  const { UNAVAILABLE, DEADLINE_EXCEEDED } = grpc.status;
  if (error.code !== UNAVAILABLE && error.code !== DEADLINE_EXCEEDED) throw error;
  return {};
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
  return `${job.name.replace("jobs/", "")}: ${word(job.state)}, ${round}, ${restarts}: ${job.message}`;
}

const shortName = (node) => node.name.split("/").pop();

// JOB_STATE_RUNNING -> running
const word = (name) => name.replace(/^(JOB_STATE|NODE_STATE|AGENT_PHASE|WORKER_STATE)_/, "").toLowerCase();

main(process.argv.slice(2));
