package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/store"
)

// mapState is all that a crowd map must remember to go on after it was stopped at any moment.
type mapState struct {
	Version int           `json:"version"`
	Began   time.Time     `json:"began"`
	Out     string        `json:"out"` // absolute; "" for stdout
	Receipt bool          `json:"receipts"`
	Allow   bool          `json:"allowFailed"`
	Budget  crowd.Credits `json:"budget,omitempty"`
	Map     *phase        `json:"map"`
	Reduce  *phase        `json:"reduce,omitempty"`
	Parts   uint64        `json:"partitions,omitempty"`
	Worked  time.Duration `json:"worked"` // of earlier runs of this command
}

const stateVersion = 1

// phase is one batch: all items of one program.
type phase struct {
	Name      string          `json:"name"`
	Program   string          `json:"program"` // file
	CID       crowd.CID       `json:"cid,omitempty"`
	Request   rpc.PostRequest `json:"request"` // without program, stdin, items and plan
	Auto      bool            `json:"auto"`    // the gas limit is still to be measured
	By        string          `json:"by"`
	Files     []input         `json:"-"` // in a file of their own: they do not change
	Index     indexed         `json:"index"`
	Plan      *rpc.BatchPlan  `json:"plan,omitempty"`
	Whole     bool            `json:"whole,omitempty"`
	ShardSize uint64          `json:"shardSize,omitempty"`
	Shards    []*shard        `json:"shards"`
}

// shard is one job's part of a phase.
type shard struct {
	First   uint64         `json:"first"` // item
	Items   uint64         `json:"items"`
	Limits  rpc.Limits     `json:"limits"`
	Plan    rpc.SamplePlan `json:"plan"`
	Stdin   crowd.CID      `json:"stdin,omitempty"`
	Posting bool           `json:"posting,omitempty"` // asked for, and the answer is not here
	Jobs    []crowd.JobID  `json:"jobs,omitempty"`    // the last one counts
	Failed  []string       `json:"failed,omitempty"`  // why earlier ones did
	Done    bool           `json:"done,omitempty"`    // its result lies in its folder

	Gas        crowd.Gas      `json:"gas,omitempty"`
	CheckGas   crowd.Gas      `json:"checkGas,omitempty"`
	BadItems   uint32         `json:"badItems,omitempty"`
	Paid       crowd.Credits  `json:"paid,omitempty"`
	Undetected float64        `json:"undetected,omitempty"`
	Convicted  []crowd.NodeID `json:"convicted,omitempty"` // over all its jobs
}

// mapDir is the folder of one crowd map. Its state is on disk before anything that follows from it is done.
type mapDir struct {
	dir  string
	lock *os.File // held while a command works on it

	mu    sync.Mutex
	state mapState // guarded by mu
}

func (d *mapDir) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

// shardDir is where the result of a shard lies.
func (d *mapDir) shardDir(p *phase, k int) string {
	return d.path(p.Name, fmt.Sprintf("shard-%05d", k))
}

func makeMapDir(dir string) (*mapDir, error) {
	if err := os.Mkdir(dir, 0o777); errors.Is(err, fs.ErrExist) {
		return nil, misuse(fmt.Sprintf("go on with: crowd map --resume %s; or remove it, or name another with --state", dir), "map: %s is there already", dir)
	} else if err != nil {
		return nil, err
	}
	d := &mapDir{dir: dir}
	return d, d.hold()
}

// hold keeps a second command from working on the same folder.
func (d *mapDir) hold() (err error) {
	if d.lock, err = store.Lock(d.path("lock")); errors.Is(err, store.ErrLocked) {
		return fmt.Errorf("another crowd map works on %s", d.dir)
	}
	return err
}

func (d *mapDir) close() { d.lock.Close() }

func openMapDir(dir string) (_ *mapDir, err error) {
	d := &mapDir{dir: dir}
	if _, err := os.Stat(dir); err == nil {
		if err := d.hold(); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				d.close()
			}
		}()
	}
	raw, err := os.ReadFile(d.path("map.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &rpc.Error{Kind: rpc.NotFound, Err: fmt.Errorf("%s is no folder of a crowd map that can go on", dir), Hint: "begin anew, with another --state or without that folder"}
	}
	if err == nil {
		err = json.Unmarshal(raw, &d.state)
	}
	if err == nil && (d.state.Version != stateVersion || d.state.Map == nil) {
		err = fmt.Errorf("version %d, want %d", d.state.Version, stateVersion)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.path("map.json"), err)
	}
	for _, p := range d.state.phases() {
		raw, err := os.ReadFile(d.path(p.Name, "files.json"))
		if err == nil {
			err = json.Unmarshal(raw, &p.Files)
		}
		if err != nil {
			return nil, fmt.Errorf("read the list of input files: %w", err)
		}
	}
	return d, nil
}

func (s *mapState) phases() []*phase {
	if s.Reduce != nil {
		return []*phase{s.Map, s.Reduce}
	}
	return []*phase{s.Map}
}

// begin cuts the files of a phase into items and keeps their list.
func (d *mapDir) begin(p *phase) error {
	c, err := parseCut(p.By)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.path(p.Name), 0o777); err != nil {
		return err
	}
	if p.Index, err = c.index(p.Files, d.path(p.Name, "items")); err != nil {
		return err
	}
	raw, err := json.Marshal(p.Files)
	if err != nil {
		return err
	}
	return writeSynced(d.path(p.Name, "files.json"), raw)
}

// change does f to the state and puts it on disk.
func (d *mapDir) change(f func(*mapState)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.state)
	raw, err := json.MarshalIndent(&d.state, "", " ")
	if err != nil {
		return err
	}
	tmp := d.path("map.json.tmp")
	if err := writeSynced(tmp, raw); err != nil {
		return err
	}
	return os.Rename(tmp, d.path("map.json"))
}

func writeSynced(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
