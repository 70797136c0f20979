// The agent's stream to the coordinator: attaches, numbers what is sent, keeps count of the lease, and comes back when
// the stream ends. It decides nothing.
"use strict";

const { EventEmitter } = require("node:events");
const { bootMs } = require("./clock");
const { AgentService, RETRYABLE, connect, reasonOf, retryMsOf, fromNs, toMs, NO_VERSION, isNewer } = require("./protocol");
const { isRefused } = require("./reach");

const HELLO_TIMEOUT_MS = 10_000;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5_000;

// Emits
//   "welcome", Welcome      attached
//   "directive", Directive  one that is newer than all before
//   "lost"                  no longer
//   "failed", sentence      an attach, which will be tried again
//   "renewed", ms           by bootMs(): the lease counts from then
//   "silent", ms            by bootMs(): nobody can have decided anything about the job up to then
//   "acked", seq            everything up to this message of the current stream has arrived
//   "stale"                 the lease is lost
//   "refused", sentence     for good; it will not attach again
class Link extends EventEmitter {
  // `identity` is what every Hello says of the agent; `observe` returns its Observed.
  constructor(address, security, identity, observe) {
    super();
    this.address = address;
    this.security = security;
    this.leaseId = "0";
    this.clusterId = "";
    this.jobUid = "";
    this.highestVersion = NO_VERSION;
    this.welcome = undefined;
    this.renewedMs = -Infinity; // by bootMs()
    this.identity = identity;
    this.observe = observe;
    this.attachSeq = 0;
    this.failures = 0; // attaches in a row that failed
    this.closed = false;
    this.stream = undefined;
  }

  // Begins; again and again until it is refused or closed.
  attach() {
    try {
      this.stub = connect(AgentService, this.address, this.security);
    } catch (error) {
      // Files amid a rotation: nothing is known of the coordinator, so the lease goes on as it does.
      this.emit("failed", error.message);
      return this.#attachLater();
    }
    const stream = this.stub.Attach();
    Object.assign(this, { stream, seq: 0, sent: new Map(), ack: undefined, attached: false, heartbeats: undefined });
    stream.on("data", (response) => stream === this.stream && this.#received(response));
    stream.on("error", () => {}); // The status says it as well.
    stream.on("status", (status) => stream === this.stream && this.#ended(status));
    this.helloSentMs = bootMs();
    this.#send({ hello: this.#hello() });
    this.answerTimer = setTimeout(() => stream.cancel(), HELLO_TIMEOUT_MS);
  }

  // Tells the coordinator the newest, if there is a stream to tell it on; else the next Hello does.
  report() {
    if (this.attached) this.#send({ observed: this.observe() });
  }

  // The last message of this stream. Returns its number; undefined if there is no stream.
  goodbye(reason, message) {
    if (!this.attached) return undefined;
    this.attached = false;
    clearInterval(this.heartbeats);
    return this.#send({ goodbye: { reason, message } });
  }

  close() {
    this.closed = true;
    clearTimeout(this.retryTimer);
    this.#drop();
  }

  #hello() {
    return {
      ...this.identity,
      cluster_id: this.clusterId,
      job_uid: this.jobUid,
      lease_id: this.leaseId,
      attach_seq: ++this.attachSeq,
      observed: this.observe(),
      highest_version: this.highestVersion,
    };
  }

  #send(message) {
    this.seq += 1;
    const now = process.hrtime.bigint();
    const clock = { send: fromNs(now) };
    if (this.ack) Object.assign(clock, { acked_seq: this.ack.seq, acked: fromNs(this.ack.at) });
    this.sent.set(this.seq, bootMs());
    this.stream.write({ lease_id: this.leaseId, seq: this.seq, clock, ...message });
    return this.seq;
  }

  #received(response) {
    if (this.closed) return;
    switch (response.message) {
      case "welcome":
        return this.#welcomed(response.welcome);
      case "directive":
        return this.#directed(response.directive);
      case "ack":
        return this.#acked(Number(response.ack.seq));
      case "lease_stale":
        this.leaseId = "0";
        this.attached = false; // Nothing more is said under it.
        return this.emit("stale");
    }
  }

  #welcomed(welcome) {
    const wrong = this.#whatIsWrong(welcome);
    if (wrong) return this.#refuse(wrong);
    clearTimeout(this.answerTimer);
    this.clusterId = welcome.cluster_id;
    this.jobUid = welcome.job_uid;
    this.leaseId = welcome.lease_id;
    this.welcome = welcome;
    this.attached = true;
    this.failures = 0;
    this.#beatEvery(toMs(welcome.heartbeat_interval));
    this.#acked(1);
    this.emit("welcome", welcome);
    this.#directed(welcome.directive);
  }

  // The first time after a random part of it: agents that were welcomed together are not to speak together.
  #beatEvery(intervalMs) {
    const begin = () => {
      this.heartbeats = setInterval(() => this.#heartbeat(), intervalMs);
      this.#heartbeat();
    };
    this.heartbeats = setTimeout(begin, intervalMs * (0.5 + 0.5 * Math.random()));
  }

  #whatIsWrong(welcome) {
    const takenOver = welcome.takes_over_cluster_id === this.clusterId;
    if (this.clusterId && welcome.cluster_id !== this.clusterId && !takenOver) return "it is another cluster's coordinator";
    const ran = this.observe().round !== undefined;
    if (this.jobUid && welcome.job_uid !== this.jobUid && ran) return "it is another life of the job";
    return "";
  }

  #directed(directive) {
    if (!isNewer(directive.version, this.highestVersion)) return;
    this.highestVersion = directive.version;
    this.emit("directive", directive);
  }

  #acked(seq) {
    const sentMs = this.sent.get(seq);
    if (sentMs === undefined) return; // Not sent on this stream, or acknowledged already.
    for (const each of this.sent.keys()) if (each <= seq) this.sent.delete(each);
    this.ack = { seq, at: process.hrtime.bigint() };
    this.renewedMs = sentMs;
    this.emit("renewed", sentMs);
    this.emit("acked", seq);
  }

  // A stream on which nothing is acknowledged for half a lease is as good as none: the other half is for another try.
  #heartbeat() {
    const [oldestMs = Infinity] = this.sent.values();
    if (bootMs() - oldestMs > toMs(this.welcome.lease_ttl) / 2) this.stream.cancel();
    else this.#send({ heartbeat: { version: this.observe().version } });
  }

  async #ended(status) {
    const wasAttached = this.attached;
    const sentMs = this.helloSentMs;
    this.#drop();
    if (this.closed) return;
    if (wasAttached) this.emit("lost");
    const reason = reasonOf(status);
    const sentence = [reason, status.details].filter(Boolean).join(": ");
    if (reason && !RETRYABLE.has(status.code) && !this.#mayBeRotated(reason)) return this.#refuse(sentence);
    if (!wasAttached) this.emit("failed", sentence);
    if (reason === "RECOVERING") this.emit("silent", sentMs);
    else if (!reason && !wasAttached) await this.#knock();
    this.#attachLater(retryMsOf(status));
  }

  // A token that was good once may be so again, when its file is renewed; for as long as the lease may last.
  #mayBeRotated(reason) {
    const endMs = this.renewedMs + toMs(this.welcome?.lease_ttl);
    return reason === "UNAUTHENTICATED" && bootMs() < endMs;
  }

  // Not before the probe is over was nobody there; so what counts is when it began.
  async #knock() {
    const beganMs = bootMs();
    if (await isRefused(this.address)) this.emit("silent", beganMs);
  }

  // After a random time, so that the agents of a job do not come back in one instant, and not before what was asked for.
  // Once there is a lease, a few times before it is over.
  #attachLater(askedMs = 0) {
    if (this.closed) return;
    const most = this.welcome ? toMs(this.welcome.heartbeat_interval) : LONGEST_RETRY_MS;
    const longest = Math.min(FIRST_RETRY_MS * 2 ** this.failures++, most, LONGEST_RETRY_MS);
    const again = () => (this.#mayAttach() ? this.attach() : this.#attachLater());
    const leastMs = Math.min(askedMs, most) * (1 + Math.random() / 2);
    this.retryTimer = setTimeout(again, Math.max(longest * (0.5 + Math.random() / 2), leastMs));
  }

  // An agent that has lost its lease must have no worker when it asks for another one.
  #mayAttach() {
    const { phase } = this.observe();
    return this.leaseId !== "0" || !["AGENT_PHASE_RUNNING", "AGENT_PHASE_STOPPING"].includes(phase);
  }

  #refuse(sentence) {
    this.close();
    this.emit("refused", sentence);
  }

  #drop() {
    clearTimeout(this.answerTimer);
    clearInterval(this.heartbeats);
    this.attached = false;
    const { stream, stub } = this;
    this.stream = undefined;
    stream?.cancel();
    stub?.close();
  }
}

module.exports = { Link };
