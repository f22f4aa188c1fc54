package scenario

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestRaid_Show(t *testing.T) {
	for _, a := range Attacks() {
		for _, plan := range Plans() {
			if s := os.Getenv("ATTACK"); s != "" && s != a.Name || !a.Against(plan) {
				continue
			}
			r, err := NewRaid(RaidConfig{Attacks: []string{a.Name}, Plan: plan, Jobs: 20})
			if err != nil {
				t.Fatal(err)
			}
			at := time.Now()
			for r.Done < r.Jobs {
				r.Play()
			}
			x := r.Toll()
			fmt.Printf("%-16s %-10s jobs %d wrong %d/%d stated %.4f profit %.6f ± %.6f damage %.6f paid %.6f ratio %.4g slashes %d faults %.1f weight %.3f  %v\n", a.Name, plan, x.Jobs, x.Wrong.Seen, x.Wrong.Of, x.Stated,
				x.Profit, x.Error, x.Damage, x.Paid, x.Ratio, x.HonestSlashes, x.Faults, x.Weight, time.Since(at).Round(time.Millisecond))
			if err := r.Err(); err != nil {
				fmt.Println("   BROKEN", err.Error()[:min(900, len(err.Error()))])
			}
		}
	}
}
