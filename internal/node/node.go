// Package node wires the rooms into a node, and nodes into a local network: it
// is the list of parts and the order in which they start and stop. It decides
// nothing that is on chain and knows no flags.
package node
