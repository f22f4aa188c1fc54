//go:build unix

package p2p

import (
	"syscall"
	"testing"
	"time"
)

// A node that stood still, as a laptop that slept, does not take the others for dead.
func TestPauseIsNoSilence(t *testing.T) {
	t.Parallel()
	a := start(t, Config{Listen: loopbacks[:1]})
	other, second := launch(t, key(t), a.Addrs()[0])
	addr, first := launch(t, key(t), other, "P2P_ASK=1")
	id, err := a.Connect(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	peers := func() string {
		t.Helper()
		got, err := a.Request(within(t, 10*time.Second), id, "/peers", nil, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	before := peers()
	second.Signal(syscall.SIGSTOP)
	wait(50 * time.Millisecond)
	first.Signal(syscall.SIGSTOP) // with a question under way
	wait(minPong + 300*time.Millisecond)
	first.Signal(syscall.SIGCONT)
	wait(50 * time.Millisecond)
	second.Signal(syscall.SIGCONT)
	wait(200 * time.Millisecond)
	if after := peers(); after != before || len(before) < 100 {
		t.Errorf("connections: got %s, want those before the pause, %s", after, before)
	}
}
