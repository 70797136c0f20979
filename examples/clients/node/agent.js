// A node agent with one worker: node agent.js [FLAGS] -- COMMAND [ARGUMENT...]   (see options.js)
//
// It does what the coordinator's newest directive says, and reports what is. By itself it ends its worker when it gets a
// signal or is refused for good; its guard does when the lease is over. Exit status: 0 the job succeeded or the node was
// drained, 1 the job failed, 4 refused, 128+N ended by signal N.
"use strict";

const crypto = require("node:crypto");
const os = require("node:os");
const { bootMs } = require("./clock");
const { SIGNALS, workerEnvironment } = require("./environment");
const { Link } = require("./link");
const { readOptions } = require("./options");
const { NO_VERSION, fromMs, fromNs, toMs } = require("./protocol");
const { freePort, ownAddress } = require("./reach");
const { Worker } = require("./worker");

const DEFAULT_FENCE_GRACE_MS = 3_000;
const DEFAULT_OUTAGE_MS = 3_600_000;
const DEFAULT_SHUTDOWN_MS = 30_000;
const FENCE_MARGIN_MS = 1_000;
const GOODBYE_TIMEOUT_MS = 5_000;

class Agent {
  constructor(options) {
    this.options = options;
    this.incarnation = crypto.randomUUID();
    this.directive = undefined; // The newest that is acted on.
    this.unsupported = undefined; // The version of one that is not.
    this.failures = [];
    this.offer = undefined;
    this.offerId = 0;
    this.offering = false;
    this.leaving = undefined; // {reason, message, status} once it is to end.
    this.goodbyeSeq = undefined; // The number of the Goodbye on this stream.
    this.ackedMs = undefined; // The lease counts from then, by bootMs(),
    this.fenceMs = -Infinity; // and no worker may be there from then on.
    this.mayNotStart = false; // A round is to be run, but there is no lease.

    this.worker = new Worker();
    this.worker.on("changed", () => this.#pursue());
    this.worker.on("orphaned", () => this.#lostGuard());
    this.link = new Link(options.coordinator, options.security, this.#identity(), () => this.#observed());
    this.link.on("welcome", () => this.#attached());
    this.link.on("lost", () => this.#say("lost contact with the coordinator"));
    this.link.on("failed", (sentence) => this.#say(`not attached: ${sentence}`));
    this.link.on("directive", (directive) => this.#directed(directive));
    this.link.on("renewed", (ms) => this.#renewed(ms));
    this.link.on("silent", (ms) => this.#hold(ms));
    this.link.on("stale", () => this.#lostLease());
    this.link.on("acked", (seq) => seq === this.goodbyeSeq && this.#end());
    this.link.on("refused", (sentence) => this.#refused(sentence));
  }

  // Returns the exit status.
  async run() {
    for (const name of SIGNALS) process.on(name, () => this.#signalled(name));
    const finished = new Promise((resolve) => (this.finish = resolve));
    this.host = this.options.localAddr ?? (await ownAddress(this.options.coordinator)) ?? os.hostname();
    if (this.leaving) return finished; // A signal came meanwhile, and has ended it.
    this.link.attach();
    this.#pursue();
    return finished;
  }

  // --- what it says

  #identity() {
    const { job, node, role, jobSpec } = this.options;
    return {
      protocol_version: 1,
      capabilities: ["CAPABILITY_SELF_FENCES", "CAPABILITY_SENDS_OBITUARY"],
      agent_version: "rallypoint-node-example/0",
      job,
      node,
      incarnation: this.incarnation,
      job_spec: jobSpec,
      node_spec: { local_world_size: 1, role, hostname: os.hostname(), entrypoint: this.options.argv[0] },
    };
  }

  #observed() {
    const { worker } = this;
    return {
      version: this.directive?.version ?? NO_VERSION,
      unsupported_version: this.unsupported,
      phase: worker.phase,
      round: worker.round,
      assignment: worker.assignment,
      workers: worker.statuses,
      failures: this.failures,
      fenced: worker.fenced,
      offer: this.offer,
      observe_time: fromMs(Date.now()),
    };
  }

  #noteFailure() {
    const { exit, assignment, pid } = this.worker;
    const said = this.worker.errorFile();
    const how = exit.exit_code < 0 ? `ended by signal ${-exit.exit_code}` : `exited with ${exit.exit_code}`;
    const failure = {
      node: this.options.node,
      local_rank: 0,
      rank: assignment.first_rank,
      pid,
      exit_code: exit.exit_code,
      message: said?.message ?? (exit.message || how),
      traceback: said?.traceback,
      fail_time: fromMs(exit.at_ms),
      fail_clock: fromNs(BigInt(exit.at)),
      after_stop: exit.after_stop,
    };
    this.failures = [failure];
  }

  // --- what it does

  #directed(directive) {
    if (directive.action === undefined) {
      this.unsupported = directive.version;
      return this.link.report();
    }
    this.#say(`told to ${directive.action}: ${directive.message}`);
    this.directive = directive;
    this.offerId = Math.max(this.offerId, Number(directive.consumed_offer_id));
    this.#pursue();
  }

  // One step toward what should be, and word of what is. Called whenever either has changed.
  #pursue() {
    const { worker } = this;
    if (worker.exit && worker.exit.exit_code !== 0 && this.failures.length === 0) this.#noteFailure();
    const action = this.leaving ? "leave" : this.directive?.action;
    if (action === "run") this.#runRound(this.directive.run.assignment);
    else if (action !== undefined && action !== "keep") worker.stop(this.#grace());
    if (!worker.alive) this.#beReady(action);
    this.link.report();
    if (this.leaving && !worker.alive) this.#sayGoodbye();
  }

  #runRound(assignment) {
    const { worker, options } = this;
    if (assignment.round === worker.round) return; // It runs, or has run: never twice.
    if (worker.alive) return worker.stop(this.#grace());
    this.mayNotStart = bootMs() >= this.fenceMs;
    if (this.mayNotStart) return;
    this.failures = [];
    this.offer = undefined; // The port is the worker's now, if it has rank 0; and of no use otherwise.
    const { job, role } = options;
    const { jobUid, welcome } = this.link;
    const known = { assignment, jobSpec: welcome.job_spec, job, jobUid, role };
    worker.start(assignment, options.argv, workerEnvironment({ inherited: process.env, ...known }));
  }

  // With no worker: a port for the next round, or the way out.
  #beReady(action) {
    if (action === "exit") this.#leave(...this.#outcome());
    else if (action === "drain") this.#leave("DRAINED", "drained", 0);
    else if (!this.leaving && !(Number(this.offer?.offer_id) > this.#consumed())) this.#makeOffer();
  }

  #consumed() {
    return Number(this.directive?.consumed_offer_id ?? 0);
  }

  async #makeOffer() {
    if (this.offering) return;
    this.offering = true;
    const port = await freePort();
    this.offering = false;
    if (this.worker.alive || this.leaving) return;
    this.offerId += 1;
    this.offer = { offer_id: this.offerId, endpoint: { host: this.host, port } };
    this.#pursue();
  }

  // How long its worker has between SIGTERM and SIGKILL: as the directive says, else what the job agreed on.
  #grace() {
    const { directive } = this;
    const said = directive?.stop ?? directive?.drain;
    return toMs(said?.grace_period, toMs(this.#spec.shutdown_timeout, DEFAULT_SHUTDOWN_MS));
  }

  get #spec() {
    return this.link.welcome?.job_spec ?? this.options.jobSpec;
  }

  // --- the lease

  #renewed(sentMs) {
    this.ackedMs = sentMs;
    this.#renew(sentMs);
    if (this.mayNotStart) this.#pursue();
  }

  // The next one comes with a newer directive.
  #lostLease() {
    this.fenceMs = -Infinity;
    this.worker.kill();
  }

  #renew(sinceMs) {
    const { lease_ttl, fence_grace } = this.#spec;
    const end_ms = sinceMs + toMs(lease_ttl);
    const kill_ms = end_ms - FENCE_MARGIN_MS;
    const term_ms = kill_ms - toMs(fence_grace, DEFAULT_FENCE_GRACE_MS);
    this.fenceMs = term_ms;
    const { coordinator: address, security } = this.options;
    this.worker.renew({ term_ms, kill_ms, end_ms, address, security, obituary: this.#obituary() });
  }

  // While nobody can have decided that the node is lost, the lease goes on; for as long as the job allows.
  #hold(untilMs) {
    const outageMs = toMs(this.#spec.coordinator_outage, DEFAULT_OUTAGE_MS);
    const awayMs = untilMs - this.ackedMs;
    if (this.link.leaseId === "0" || awayMs > outageMs) return;
    this.#renew(untilMs);
    if (awayMs > toMs(this.#spec.lease_ttl)) this.#say("nobody serves: the lease would be over, but the worker runs on");
  }

  #obituary() {
    const { jobUid: job_uid, leaseId: lease_id } = this.link;
    const message = "the agent is gone, and its guard has ended the worker";
    return { job: this.options.job, job_uid, lease_id, incarnation: this.incarnation, round: this.worker.round, message };
  }

  // --- the end

  #attached() {
    this.#say("attached");
    this.goodbyeSeq = undefined;
    this.#pursue();
  }

  #outcome() {
    const { state, message } = this.directive.exit.outcome;
    return ["JOB_DECIDED", message, state === "JOB_STATE_SUCCEEDED" ? 0 : 1];
  }

  #signalled(name) {
    if (this.leaving) return this.worker.kill(); // The second one.
    this.#leave("SIGNAL", `ended by ${name}`, 128 + os.constants.signals[name]);
    this.#pursue();
  }

  #refused(sentence) {
    this.#leave("", `refused: ${sentence}`, 4);
    this.#pursue();
  }

  // Without the guard nothing ends the worker in time should this process die: so it ends, with the worker. Whether
  // that is gone cannot be seen from here. So there is no Goodbye, and the coordinator waits for the lease.
  #lostGuard() {
    this.#say("the guard is dead");
    process.exit(1);
  }

  #leave(reason, message, status) {
    this.leaving ??= { reason, message, status };
    this.offer = undefined; // It would be taken into the next round.
  }

  // To whom the agent is a member. If there is no stream to say it on, the guard sends the obituary, which says the same.
  #sayGoodbye() {
    if (this.link.closed || this.link.leaseId === "0") return this.#end();
    this.goodbyeSeq ??= this.link.goodbye(this.leaving.reason, this.leaving.message);
    if (this.goodbyeSeq === undefined) return this.#end({ isSaid: false });
    this.giveUp ??= setTimeout(() => this.#end({ isSaid: false }), GOODBYE_TIMEOUT_MS);
  }

  #end({ isSaid = true } = {}) {
    this.#say(this.leaving.message);
    clearTimeout(this.giveUp);
    this.link.close();
    this.worker.close({ isSaid });
    this.finish(this.leaving.status);
  }

  // Once: what is true still needs no second line.
  #say(sentence) {
    if (sentence === this.said) return;
    this.said = sentence;
    console.error(`agent ${this.options.node}: ${sentence}`);
  }
}

new Agent(readOptions(process.argv.slice(2))).run().then((status) => process.exit(status));
