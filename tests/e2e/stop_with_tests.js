// Loaded before soketi: however the tests end, they close this pipe, and soketi does not stay behind.
process.stdin.on("end", () => process.exit()).resume();
