package crowd

// RulesVersion numbers the rules by which a task comes to its outcome: the price list and the instrumentation of programs, the
// host functions, the charge for code and inputs, and the encodings of outcomes and openings. A network states its number in
// its genesis. A build with another number may compute another outcome for the same task, so it neither claims places nor votes
// there. Whoever changes one of these rules takes the next number; a test holds their hash.
const RulesVersion uint32 = 1
