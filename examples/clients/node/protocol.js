// The protocol, straight from protos/: service stubs, and what their messages need to be handy in JavaScript.
"use strict";

const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");
const { credentialsOf, interceptorsOf } = require("./security");

const PROTOS = path.join(__dirname, "..", "..", "..", "protos");

// Fields keep their names, enums are their names. 64-bit integers are decimal strings, since a number cannot hold them
// all. With `oneofs` a oneof is a property that names which of its fields is set: undefined if it is one that this copy
// of the protos does not know. With `defaults` whatever is not set has its default, but for `optional` fields.
const OPTIONS = { keepCase: true, longs: String, enums: String, oneofs: true, defaults: true };

const definition = protoLoader.loadSync(["rallypoint/v1/agent_service.proto", "rallypoint/v1/job_service.proto"], {
  ...OPTIONS,
  includeDirs: [PROTOS],
});
const { AgentService, JobService } = grpc.loadPackageDefinition(definition).rallypoint.v1;

// The messages of googleapis that tell why a call was refused, and when to come back.
const rpc = protoLoader.fromJSON(
  {
    nested: {
      Any: { fields: { type_url: { type: "string", id: 1 }, value: { type: "bytes", id: 2 } } },
      Status: {
        fields: {
          code: { type: "int32", id: 1 },
          message: { type: "string", id: 2 },
          details: { rule: "repeated", type: "Any", id: 3 },
        },
      },
      ErrorInfo: { fields: { reason: { type: "string", id: 1 }, domain: { type: "string", id: 2 } } },
      Duration: { fields: { seconds: { type: "int64", id: 1 }, nanos: { type: "int32", id: 2 } } },
      RetryInfo: { fields: { retry_delay: { type: "Duration", id: 1 } } },
    },
  },
  OPTIONS,
);

// A stub of one of the services, on a connection of its own: a new one is not held up by what an earlier one waits for.
// Close it. Throws if a file of `security` cannot be used.
function connect(Service, address, security) {
  return new Service(address, credentialsOf(security), {
    "grpc.enable_http_proxy": 0,
    "grpc.use_local_subchannel_pool": 1,
    "grpc.keepalive_time_ms": 20_000, // A stream that only reads would not notice that the other side is gone.
    interceptors: interceptorsOf(security),
  });
}

// After these the same may be asked again. Any other of the coordinator's own refusals is for good.
const { UNAVAILABLE, ABORTED, RESOURCE_EXHAUSTED, CANCELLED, INTERNAL } = grpc.status;
const RETRYABLE = new Set([UNAVAILABLE, ABORTED, RESOURCE_EXHAUSTED, CANCELLED, INTERNAL]);

// Calls a unary method, and waits up to 10 s for the answer. Rejects with grpc-js's error, which has `code` and `details`.
function call(stub, method, request) {
  return new Promise((resolve, reject) => {
    const answered = (error, answer) => (error ? reject(error) : resolve(answer));
    stub[method](request, { deadline: Date.now() + 10_000 }, answered);
  });
}

// The google.rpc.ErrorInfo reason that a status carries; "" if it was not the coordinator that ended the call.
function reasonOf(status) {
  const info = detailOf(status, "ErrorInfo");
  return info?.domain === "rallypoint" ? info.reason : "";
}

// How long to wait at least before asking again, by the google.rpc.RetryInfo that a status carries; 0 without one.
const retryMsOf = (status) => toMs(detailOf(status, "RetryInfo")?.retry_delay);

// One of the details of a status, by its kind; undefined if it has none.
function detailOf(status, kind) {
  const [bytes] = status.metadata?.get("grpc-status-details-bin") ?? [];
  if (bytes === undefined) return undefined;
  const found = rpc.Status.deserialize(bytes).details.find((any) => any.type_url.endsWith(`/google.rpc.${kind}`));
  return found && rpc[kind].deserialize(found.value);
}

const NO_VERSION = { epoch: "0", revision: "0" };

// Whether one version is higher than another: by epoch, then by revision.
function isNewer(version, than) {
  if (version.epoch !== than.epoch) return BigInt(version.epoch) > BigInt(than.epoch);
  return BigInt(version.revision) > BigInt(than.revision);
}

const fromMs = (ms) => ({ seconds: Math.floor(ms / 1000), nanos: Math.round((ms % 1000) * 1e6) });

// Of a Duration or a Timestamp. `unset`: what one that is not set means.
const toMs = (moment, unset = 0) => (moment ? Number(moment.seconds) * 1000 + moment.nanos / 1e6 : unset);

// A Duration of nanoseconds, which is what process.hrtime.bigint() counts.
const fromNs = (ns) => ({ seconds: String(ns / 1_000_000_000n), nanos: Number(ns % 1_000_000_000n) });

module.exports = {
  grpc,
  AgentService,
  JobService,
  connect,
  call,
  RETRYABLE,
  reasonOf,
  retryMsOf,
  NO_VERSION,
  isNewer,
  fromMs,
  toMs,
  fromNs,
};
