// The one worker of this node: what it is told, what has become of it.
"use strict";

const { EventEmitter } = require("node:events");
const { fork } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

// Emits "changed" when its process has come to run, is being fenced, or has ended; and "orphaned" if its guard is dead.
class Worker extends EventEmitter {
  constructor() {
    super();
    this.assignment = undefined; // of the round that it runs or ran last
    this.alive = false; // there may be a process
    this.pid = 0;
    this.stopping = false; // it was told to end
    this.fenced = false; // because the lease ran out
    this.exit = undefined; // how it ended: see guard.js
    this.folder = fs.mkdtempSync(path.join(os.tmpdir(), "rallypoint-"));
    this.guard = fork(path.join(__dirname, "guard.js"), { detached: true });
    this.guard.on("message", (message) => this.#told(message));
    this.guard.on("error", () => {}); // It cannot be told anything: it has ended, or is about to.
    this.guard.once("exit", () => this.#unguarded());
  }

  start(assignment, argv, env) {
    Object.assign(this, { assignment, alive: true, pid: 0, stopping: false, fenced: false, exit: undefined });
    fs.rmSync(this.#errorFile, { force: true });
    this.guard.send({ run: { argv, env: { ...env, TORCHELASTIC_ERROR_FILE: this.#errorFile } } });
  }

  // SIGTERM, and SIGKILL after the grace.
  stop(grace_ms) {
    if (!this.alive || this.stopping) return;
    this.stopping = true;
    this.guard.send({ stop: { grace_ms } });
  }

  kill() {
    if (!this.alive) return;
    this.stopping = true;
    this.guard.send({ kill: {} });
  }

  // How long the lease lasts, and what to say to whom should this process die.
  renew(lease) {
    this.guard.send({ lease });
  }

  // The guard ends as well; after an obituary, if the coordinator does not know yet.
  close({ isSaid }) {
    this.guard.removeAllListeners("exit");
    if (isSaid) this.guard.send({ farewell: {} });
    this.guard.disconnect();
    fs.rmSync(this.folder, { recursive: true });
  }

  get round() {
    return this.assignment?.round;
  }

  get phase() {
    if (this.alive) return this.stopping ? "AGENT_PHASE_STOPPING" : "AGENT_PHASE_RUNNING";
    if (this.exit === undefined || this.exit.after_stop) return "AGENT_PHASE_READY";
    return this.exit.exit_code === 0 ? "AGENT_PHASE_SUCCEEDED" : "AGENT_PHASE_FAILED";
  }

  // WorkerStatus of all workers of the round.
  get statuses() {
    if (this.assignment === undefined) return [];
    const { pid, exit } = this;
    return [{ local_rank: 0, rank: this.assignment.first_rank, pid, state: this.#state, exit_code: exit?.exit_code }];
  }

  get #state() {
    if (this.alive) return this.pid ? "WORKER_STATE_HEALTHY" : "WORKER_STATE_INIT";
    if (this.exit.after_stop) return "WORKER_STATE_STOPPED";
    return this.exit.exit_code === 0 ? "WORKER_STATE_SUCCEEDED" : "WORKER_STATE_FAILED";
  }

  get #errorFile() {
    return path.join(this.folder, `error-${this.round}.json`);
  }

  // What the worker left about its end, in torch's format: {message, traceback}.
  errorFile() {
    try {
      const { message } = JSON.parse(fs.readFileSync(this.#errorFile, "utf8"));
      return { message: String(message.message ?? message), traceback: message.extraInfo?.py_callstack ?? "" };
    } catch {
      return undefined; // It wrote none, or half of one.
    }
  }

  #told(message) {
    if (message.started) this.pid = message.started;
    if (message.fenced) Object.assign(this, { stopping: true, fenced: true });
    if (message.exited) Object.assign(this, { alive: false, exit: message.exited });
    this.emit("changed");
  }

  // Nobody would end the worker in time any more.
  #unguarded() {
    try {
      if (this.pid && this.alive) process.kill(-this.pid, "SIGKILL");
    } catch {
      // It ended with its guard.
    }
    fs.rmSync(this.folder, { recursive: true });
    this.emit("orphaned");
  }
}

module.exports = { Worker };
