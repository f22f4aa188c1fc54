package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/atomicfile"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/rpc"
	"github.com/crowdcompute/crowd/internal/store"
)

// mapState is all that a crowd map must remember to go on after it was stopped at any moment.
type mapState struct {
	Version       int           `json:"version"`
	Began         time.Time     `json:"began"`
	Out           string        `json:"out"` // absolute; "" for stdout
	Allow         bool          `json:"allowFailed"`
	NoSpeculation bool          `json:"noSpeculation,omitempty"`
	Budget        crowd.Credits `json:"budget,omitempty"`
	Stages        []*stage      `json:"stages"` // as those of Flow
	Flow          *flow.State   `json:"flow"`
	Worked        time.Duration `json:"worked"` // of earlier runs of this command
	// Bytes: between the command and its node, between that node and others, and between executors.
	Uploaded   uint64 `json:"uploaded,omitempty"`
	Downloaded uint64 `json:"downloaded,omitempty"`
	Fetched    uint64 `json:"fetched,omitempty"`
	Served     uint64 `json:"served,omitempty"`
	Shuffled   uint64 `json:"shuffled,omitempty"`
}

const stateVersion = 2

// stage is what package flow does not know of a stage: a program, and how it is run and checked.
type stage struct {
	Name       string          `json:"name"` // a folder too
	Program    string          `json:"program"`
	CID        crowd.CID       `json:"cid,omitempty"`
	Request    rpc.PostRequest `json:"request"`         // without program, stdin, items and plan
	Auto       bool            `json:"auto"`            // the gas limit is still to be measured
	Start      crowd.Gas       `json:"start,omitempty"` // most that the items of a shard bear together, before their program begins; 0: not measured
	By         string          `json:"by,omitempty"`
	Files      []input         `json:"-"` // in a file of their own: they do not change
	Index      indexed         `json:"index"`
	Plan       *rpc.BatchPlan  `json:"plan,omitempty"`
	Whole      bool            `json:"whole,omitempty"`
	ShardSize  uint64          `json:"shardSize,omitempty"`
	Partitions uint64          `json:"partitions,omitempty"` // least, of what it reads
	Shards     []*shard        `json:"shards"`               // as those of its flow.Stage
}

// shard is what package flow does not know of a shard.
type shard struct {
	Limits rpc.Limits     `json:"limits"`
	Plan   rpc.SamplePlan `json:"plan"`
	Stdin  crowd.CID      `json:"stdin,omitempty"`
	Jobs   []jobDone      `json:"jobs,omitempty"`
}

// jobDone is what an ended job of a shard came to.
type jobDone struct {
	Try        int            `json:"try"` // of the flow.Attempt
	Gas        crowd.Gas      `json:"gas,omitempty"`
	CheckGas   crowd.Gas      `json:"checkGas,omitempty"`
	BadItems   uint32         `json:"badItems,omitempty"`
	Undetected float64        `json:"undetected,omitempty"`
	Convicted  []crowd.NodeID `json:"convicted,omitempty"`
}

// used is the job whose result counts; nil: there is none yet.
func (sh *shard) used(f *flow.Shard) *jobDone {
	for i := range sh.Jobs {
		if sh.Jobs[i].Try == f.Use {
			return &sh.Jobs[i]
		}
	}
	return nil
}

// mapDir is the folder of one crowd map. Its state is on disk before anything that follows from it is done.
type mapDir struct {
	dir  string
	lock *os.File // held while a command works on it

	state   mapState     // of the goroutine that drives it
	written []byte       // what is on disk
	wrote   func() error // nil; of a test: called when it is on disk
}

func (d *mapDir) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

// shardDir is where the result of a shard lies.
func (d *mapDir) shardDir(st *stage, k int) string {
	return d.path(st.Name, fmt.Sprintf("shard-%05d", k))
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
	if _, err := os.Stat(d.path("map.json")); err == nil { // else nothing is written there, not even the lock
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
	if err == nil {
		err = d.state.sound()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", d.path("map.json"), err)
	}
	for _, st := range d.state.Stages {
		raw, err := os.ReadFile(d.path(st.Name, "files.json"))
		if err == nil {
			err = json.Unmarshal(raw, &st.Files)
		}
		if err != nil {
			return nil, fmt.Errorf("read the list of input files: %w", err)
		}
	}
	return d, nil
}

// recognize compares inputs whose time is another than it was with what they held, once, so that each shard need not.
// What has changed is left to the shards that need it.
func (d *mapDir) recognize() {
	for _, st := range d.state.Stages {
		for i := range st.Files {
			in := &st.Files[i]
			f, err := openFile(in.Path)
			if err != nil {
				continue
			}
			if in.changed(f) == nil {
				if info, err := f.Stat(); err == nil {
					in.ModTime = info.ModTime()
				}
			}
			f.Close()
		}
	}
}

// sound reports what makes s none that this program wrote.
func (s *mapState) sound() error {
	if s.Version != stateVersion {
		return fmt.Errorf("version %d, want %d", s.Version, stateVersion)
	}
	if s.Flow == nil || len(s.Flow.Stages) != len(s.Stages) || len(s.Stages) == 0 {
		return errors.New("it does not fit together")
	}
	for i, st := range s.Stages {
		if st == nil || st.Name != s.Flow.Stages[i].Name || len(st.Shards) < len(s.Flow.Stages[i].Shards) { // more: they are laid out anew
			return errors.New("its stages do not fit together")
		}
	}
	return nil
}

// begin cuts the files of a stage into items and keeps their list.
func (d *mapDir) begin(st *stage) error {
	c, err := parseCut(st.By)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(d.path(st.Name), 0o777); err != nil {
		return err
	}
	if st.Index, err = c.index(st.Files, d.path(st.Name, "items")); err != nil {
		return err
	}
	return d.keepFiles(st)
}

func (d *mapDir) keepFiles(st *stage) error {
	raw, err := json.Marshal(st.Files)
	if err != nil {
		return err
	}
	return writeSynced(d.path(st.Name, "files.json"), raw)
}

// change does f to the state and puts it on disk.
func (d *mapDir) change(f func(*mapState)) error {
	f(&d.state)
	raw, err := json.Marshal(&d.state)
	if err != nil || bytes.Equal(raw, d.written) {
		return err
	}
	made, err := os.Stat(d.dir)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(d.path("map.json"), raw, made.Mode().Perm()&0o666); err != nil { // as the umask let the folder be
		return err
	}
	if d.written = raw; d.wrote == nil {
		return nil
	}
	return d.wrote()
}

func writeSynced(path string, data []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
