package crowd

// RulesVersion numbers what decides an outcome besides the task itself: the price of every instruction, host function, byte of code
// and byte laid out; the host functions, their types and what they answer; which modules are refused, and how the others are
// rewritten; and how outcomes, openings and the leaves of batches are encoded. Two nodes that differ in one of these come to
// different outcomes of the same task, and one of them would lose its stake. So a network names the number that all of its
// nodes must have, and a build with another one takes no part in its jobs.
//
// It rises with every change of the kind; tests in internal/executor/wasm and in instrument below it fail until it does.
const RulesVersion uint32 = 1
