package swarm

// liars see: every node of their side. Do: as colluders, and their records name a victim's address.
type liars struct {
	colluders
}
