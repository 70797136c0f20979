// The clock of leases: CLOCK_BOOTTIME, which is never set and goes on while the machine is suspended. Node's own timers
// and hrtime do not, and os.uptime() is in whole seconds before Node.js 20.
"use strict";

const fs = require("node:fs");

// Milliseconds since the machine was started, by hundredths of a second, rounded down.
const bootMs = () => Number(fs.readFileSync("/proc/uptime", "latin1").split(" ")[0]) * 1000;

module.exports = { bootMs };
