// The parent of the worker, a process of its own: what the agent promises has to hold when the agent itself is killed or
// stopped. It ends the worker when the lease is over (CAPABILITY_SELF_FENCES), and when the agent is gone; then it says
// so to the coordinator (CAPABILITY_SENDS_OBITUARY).
//
// The agent forks it and speaks to it in JSON: {run}, {stop}, {kill}, {lease}, {farewell}. It answers {started},
// {fenced}, {exited}. It ends the worker's process group, not what left that: so CAPABILITY_KILLS_TREES is not claimed.
"use strict";

const { spawn } = require("node:child_process");
const os = require("node:os");
const { setTimeout: wait } = require("node:timers/promises");
const { bootMs } = require("./clock");

const LOOK_EVERY_MS = 100;
const SHORTEST_RETRY_MS = 200;

let worker; // The process, while it is there.
let stopping = false; // It was told to end.
let killTimer;
let lease; // {term_ms, kill_ms, end_ms} by bootMs(); and the obituary, with how the coordinator is reached.
let agent = "there"; // or "gone", or "left": it ended in order.

const orders = {
  run({ argv, env }) {
    stopping = false;
    worker = spawn(argv[0], argv.slice(1), { env, detached: true, stdio: ["ignore", "inherit", "inherit"] });
    worker.once("exit", (code, signal) => ended(signal ? -os.constants.signals[signal] : code));
    // It has no pid if it could not be started; else the error is that of a signal, which has no meaning here.
    worker.on("error", (error) => worker?.pid === undefined && ended(127, error.message));
    if (worker.pid !== undefined) tell({ started: worker.pid });
  },
  stop({ grace_ms }) {
    if (worker === undefined || stopping) return;
    signal("SIGTERM");
    killTimer = setTimeout(() => signal("SIGKILL"), grace_ms);
  },
  kill() {
    signal("SIGKILL");
  },
  lease(newest) {
    lease = newest;
  },
  farewell() {
    agent = "left";
  },
};

function signal(name) {
  if (worker?.pid === undefined) return;
  stopping = true;
  signalGroup(worker.pid, name);
}

function signalGroup(pid, name) {
  try {
    process.kill(-pid, name);
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

// Once for each worker. Whatever else is in its group goes as well.
function ended(exit_code, message = "") {
  const at = process.hrtime.bigint();
  const { pid } = worker;
  clearTimeout(killTimer);
  worker = undefined;
  if (pid !== undefined) signalGroup(pid, "SIGKILL");
  tell({ exited: { exit_code, message, after_stop: stopping, at: String(at), at_ms: Date.now() } });
  if (agent !== "there") leave();
}

function tell(message) {
  if (process.connected) process.send(message);
}

// A look at the clock instead of a timer: timers stand still while the machine is suspended, the lease does not. What has
// begun goes on even if the lease is renewed meanwhile: the worker knows already that it is to end.
function fence() {
  const now = bootMs();
  if (worker === undefined || lease === undefined || now < lease.term_ms) return;
  if (!stopping) {
    tell({ fenced: true });
    orders.stop({ grace_ms: lease.kill_ms - now });
  }
  if (now >= lease.kill_ms) signal("SIGKILL");
}

function agentIsGone() {
  if (agent === "there") agent = "gone";
  if (worker === undefined) leave();
  else signal("SIGKILL");
}

async function leave() {
  if (agent === "gone" && lease !== undefined) await sendObituary(lease);
  process.exit();
}

// Until it has arrived, or the lease is over and says the same. The coordinator's own word is final, unless it is not
// able to answer now, or does not know the token yet that a rotation brings.
async function sendObituary({ address, security, obituary, end_ms }) {
  const { grpc, AgentService, connect, call, reasonOf } = require("./protocol"); // Only now: most guards never need it.
  const { UNAVAILABLE, UNAUTHENTICATED } = grpc.status;
  for (let pause = SHORTEST_RETRY_MS; bootMs() < end_ms; pause *= 2) {
    let stub;
    try {
      stub = connect(AgentService, address, security);
      return await call(stub, "ReportGone", obituary);
    } catch (error) {
      if (reasonOf(error) && error.code !== UNAVAILABLE && error.code !== UNAUTHENTICATED) return;
    } finally {
      stub?.close();
    }
    await wait(Math.min(pause, 5000));
  }
}

process.on("message", (message) => {
  for (const [order, details] of Object.entries(message)) orders[order](details);
});
process.on("disconnect", agentIsGone);
setInterval(fence, LOOK_EVERY_MS);
