// Following a job: WatchJob over as many streams as it takes, until the job is decided.
"use strict";

const { setTimeout: wait } = require("node:timers/promises");
const { JobService, RETRYABLE, connect, reasonOf, retryMsOf } = require("./protocol");

const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5_000;

// Yields every WatchJobResponse. The first one has a snapshot; a later one that has one says that something may have
// been missed. Throws what trying again would not change, and whatever goes wrong before there was a first one. `broke`
// is called with the error of a stream that is taken up again.
async function* watch(address, security, name, broke) {
  let resume_token = "";
  for (let pauseMs = FIRST_RETRY_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_RETRY_MS)) {
    let stub, askedMs;
    try {
      stub = connect(JobService, address, security);
      for await (const message of stub.WatchJob({ name, resume_token })) {
        ({ resume_token } = message);
        pauseMs = FIRST_RETRY_MS;
        yield message;
      }
      return; // The job is decided.
    } catch (error) {
      if (!resume_token || !mayPass(error)) throw error;
      if (reasonOf(error) === "WATCH_EXPIRED") resume_token = "";
      askedMs = retryMsOf(error);
      broke(error);
    } finally {
      stub?.close();
    }
    await wait(Math.max(pauseMs, askedMs) * (1 + Math.random() / 2));
  }
}

// An expired token is no reason to give up: without it, the watch begins anew. Nor is a file amid a rotation, whose
// error has a code of its own kind.
function mayPass(error) {
  return RETRYABLE.has(error.code) || reasonOf(error) === "WATCH_EXPIRED" || typeof error.code === "string";
}

module.exports = { watch };
