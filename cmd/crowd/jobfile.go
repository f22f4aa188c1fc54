package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/flow"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// This file is what a user wants of a flow, whether he says it in flags or in a job file.

// flowWish is a flow as the user wants it.
type flowWish struct {
	stages        []stageWish
	out           string // "" for stdout; a slash at the end: a folder
	budget        crowd.Credits
	allow         bool
	noSpeculation bool
}

// stageWish is a stage of it.
type stageWish struct {
	name, program string
	inputs, from  []string // one of them
	by            string
	request       rpc.PostRequest
	auto          bool // no gas limit was given
	whole         bool
	shard         uint64
	partitions    uint64
	writes        float64 // bytes for each byte that it reads, as far as the user knows; for plans
	providers     []string
}

// nodes are the stages for package flow.
func (w *flowWish) nodes() []flow.Node {
	var out []flow.Node
	for _, s := range w.stages {
		n := flow.Node{Name: s.name, From: s.from}
		if s.auto {
			n.Pilot = pilotItems
		}
		out = append(out, n)
	}
	return out
}

// wish is what flags say.
func (f *mapFlags) wish(command string, args []string) (*flowWish, error) {
	req, budget, err := f.request(command)
	if err != nil {
		return nil, err
	}
	w := &flowWish{out: f.out, budget: budget, allow: f.allowFailed, noSpeculation: f.noSpeculation}
	one := stageWish{name: "map", program: args[0], inputs: args[1:], by: f.by, request: req, auto: f.gas == "auto", whole: f.whole, shard: f.shard, writes: 1, providers: f.providers}
	w.stages = []stageWish{one}
	if f.reduce != "" {
		one.name, one.program, one.inputs, one.from, one.partitions = "reduce", f.reduce, nil, []string{"map"}, f.partitions
		w.stages = append(w.stages, one)
	}
	return w, nil
}

// isJobFile reports whether an argument names a job file.
func isJobFile(name string) bool {
	return filepath.Ext(name) == ".yaml" || filepath.Ext(name) == ".yml"
}

// maxJobFile bounds a job file, in bytes.
const maxJobFile = 1 << 20

// text is a scalar, and where it stands.
type text struct {
	s    string
	line int
}

func (t *text) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.ScalarNode {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: want one text, not a list or a table", n.Line)}}
	}
	t.s, t.line = n.Value, n.Line
	return nil
}

// texts are several of them, or one.
type texts []text

func (t *texts) UnmarshalYAML(n *yaml.Node) error {
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		list = n.Content
	}
	*t = texts{}
	for _, n := range list {
		var one text
		if err := one.UnmarshalYAML(n); err != nil {
			return err
		}
		*t = append(*t, one)
	}
	return nil
}

func (t texts) strings() (out []string) {
	for _, x := range t {
		out = append(out, x.s)
	}
	return out
}

// jobFile is a job file as it is written. What a stage does not say, the file says for all of them.
type jobFile struct {
	Stages        []jobStage `yaml:"stages"`
	Out           text       `yaml:"out"`
	AllowFailed   bool       `yaml:"allow-failed"`
	NoSpeculation bool       `yaml:"no-speculation"`
	Budget        text       `yaml:"budget"`
	jobLimits     `yaml:",inline"`
}

type jobStage struct {
	Name       text    `yaml:"name"`
	Program    text    `yaml:"program"`
	Args       texts   `yaml:"args"`
	Env        texts   `yaml:"env"`
	Inputs     texts   `yaml:"inputs"`
	By         text    `yaml:"by"`
	From       texts   `yaml:"from"`
	Partitions uint64  `yaml:"partitions"`
	Shard      uint64  `yaml:"shard"`
	Writes     float64 `yaml:"writes"`
	jobLimits  `yaml:",inline"`
}

type jobLimits struct {
	Gas        text  `yaml:"gas"`
	Memory     text  `yaml:"memory"`
	MaxOutput  text  `yaml:"max-output"`
	Timeout    text  `yaml:"timeout"`
	Compare    text  `yaml:"compare"`
	MaxPrice   text  `yaml:"max-price"`
	Confidence text  `yaml:"confidence"`
	Whole      *bool `yaml:"whole"`
	Tags       texts `yaml:"tags"`
	Countries  texts `yaml:"countries"`
	Providers  texts `yaml:"providers"`
}

// knownFields are the names that a table of a job file may have, for those who mistype one.
var knownFields = map[string]string{
	"jobFile":  "stages, out, allow-failed, no-speculation, budget, and for all stages: " + limitNames,
	"jobStage": "name, program, args, env, inputs, by, from, partitions, shard, writes, " + limitNames,
}

const limitNames = "gas, memory, max-output, timeout, compare, max-price, confidence, whole, tags, countries, providers"

// stageName is what a stage may be called: it is a folder of the state too.
var stageName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}$`)

// readJobFile reads a job file. Its errors say the line and the cure. Names of files in it count from its folder.
func readJobFile(name string) (*flowWish, error) {
	raw, err := readBounded(name, maxJobFile)
	if err != nil {
		return nil, err
	}
	w, err := parseJobFile(name, raw)
	if err != nil {
		return nil, misuse("docs/job.md shows a job file; crowd plan "+name+" shows what it would do", "%v", err)
	}
	return w, nil
}

func parseJobFile(name string, raw []byte) (*flowWish, error) {
	var f jobFile
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&f); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: it is empty", name)
	} else if err != nil {
		return nil, yamlError(name, err)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: more than one document", name)
	}
	bad := func(line int, format string, a ...any) error {
		at := name
		if line > 0 {
			at += ":" + strconv.Itoa(line)
		}
		return fmt.Errorf("%s: %w", at, fmt.Errorf(format, a...))
	}
	if len(f.Stages) == 0 {
		return nil, bad(0, "no stages; a job file has a list of them: name, program, and inputs or from")
	}
	w := &flowWish{out: besides(name, f.Out.s), allow: f.AllowFailed, noSpeculation: f.NoSpeculation}
	lines := map[string]int{}
	for i := range f.Stages {
		s := &f.Stages[i]
		s.jobLimits.inherit(&f.jobLimits)
		line := max(s.Name.line, s.Program.line)
		switch {
		case s.Name.s == "":
			return nil, bad(line, "stage %d has no name", i+1)
		case !stageName.MatchString(s.Name.s) || s.Name.s == "lock" || s.Name.s == "stdin":
			return nil, bad(line, "a stage cannot be called %q: up to 32 of a-z, 0-9, - and _, and neither lock nor stdin", s.Name.s)
		case s.Program.s == "":
			return nil, bad(line, "stage %s has no program", s.Name.s)
		case (len(s.Inputs) == 0) == (len(s.From) == 0):
			return nil, bad(line, "stage %s needs either inputs (files) or from (stages whose outputs it reads)", s.Name.s)
		case len(s.From) > 0 && s.By.s != "":
			return nil, bad(s.By.line, "stage %s: by is for files; what other stages wrote is cut by its keys", s.Name.s)
		case len(s.From) == 0 && s.Partitions > 0:
			return nil, bad(line, "stage %s: partitions are for a stage that reads others", s.Name.s)
		case s.Partitions > crowd.MaxParts:
			return nil, bad(line, "stage %s: %d partitions, at most %d", s.Name.s, s.Partitions, crowd.MaxParts)
		case !(s.Writes >= 0):
			return nil, bad(line, "stage %s: writes: %v; want bytes for each byte that it reads, as 0.1", s.Name.s, s.Writes)
		}
		lines[s.Name.s] = line
		wish, budget, at, err := s.wish(name, f.Budget)
		if err != nil {
			return nil, bad(at, "stage %s: %w", s.Name.s, err)
		}
		w.stages, w.budget = append(w.stages, wish), budget
	}
	if _, err := flow.New(w.nodes()); err != nil {
		line := 0
		for _, n := range slices.Sorted(maps.Keys(lines)) {
			if strings.Contains(" "+err.Error()+" ", " "+n+" ") {
				line = max(line, lines[n])
			}
		}
		return nil, bad(line, "%w", err)
	}
	if ends := w.ends(); len(ends) > 1 && !strings.HasSuffix(w.out, "/") {
		return nil, bad(f.Out.line, "nobody reads the stages %s: out must be a folder (with a slash at the end) for a file of each", strings.Join(ends, ", "))
	}
	return w, nil
}

// ends are the stages that nobody reads.
func (w *flowWish) ends() (out []string) {
	for _, s := range w.stages {
		if !slices.ContainsFunc(w.stages, func(r stageWish) bool { return slices.Contains(r.from, s.name) }) {
			out = append(out, s.name)
		}
	}
	return out
}

// besides is a path that counts from the folder of a job file.
func besides(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	out := filepath.Join(filepath.Dir(file), path)
	if strings.HasSuffix(path, "/") {
		out += "/"
	}
	return out
}

// inherit takes from all what l does not say.
func (l *jobLimits) inherit(all *jobLimits) {
	for _, x := range []struct{ mine, all *text }{{&l.Gas, &all.Gas}, {&l.Memory, &all.Memory}, {&l.MaxOutput, &all.MaxOutput}, {&l.Timeout, &all.Timeout}, {&l.Compare, &all.Compare},
		{&l.MaxPrice, &all.MaxPrice}, {&l.Confidence, &all.Confidence}} {
		if x.mine.s == "" {
			*x.mine = *x.all
		}
	}
	for _, x := range []struct{ mine, all *texts }{{&l.Tags, &all.Tags}, {&l.Countries, &all.Countries}, {&l.Providers, &all.Providers}} {
		if *x.mine == nil {
			*x.mine = *x.all
		}
	}
	if l.Whole == nil {
		l.Whole = all.Whole
	}
}

// wish is a stage with its values read; at is the line of a bad one.
func (s *jobStage) wish(file string, budget text) (w stageWish, all crowd.Credits, at int, err error) {
	f := batchFlags{by: "files", gas: "auto", memory: "256MiB", maxOutput: "1MiB", compare: "exact", confidence: 0.99, env: s.Env.strings(), args: s.Args.strings(),
		tags: s.Tags.strings(), country: s.Countries.strings(), providers: s.Providers.strings(), budget: budget.s, whole: s.Whole != nil && *s.Whole, shard: s.Shard}
	where := map[string]int{"--budget": budget.line, "--by": s.By.line, "limits": s.Gas.line}
	for _, x := range []struct {
		name string
		text text
		to   *string
	}{{"by", s.By, &f.by}, {"gas", s.Gas, &f.gas}, {"memory", s.Memory, &f.memory}, {"max-output", s.MaxOutput, &f.maxOutput}, {"max-price", s.MaxPrice, &f.maxPrice}} {
		if where["--"+x.name] = x.text.line; x.text.s != "" {
			*x.to = x.text.s
		}
	}
	if c := s.Compare; c.s != "" {
		where["--compare"], f.compare = c.line, c.s
		if program := comparatorFile(c.s); program != "" {
			f.compare = withProgram(c.s, crowd.CID(besides(file, program)))
		}
	}
	if t := s.Timeout; t.s != "" {
		if f.timeout, err = time.ParseDuration(t.s); err != nil || f.timeout <= 0 {
			return w, 0, t.line, fmt.Errorf("timeout %q: want a time, as 90s or 5m", t.s)
		}
	}
	if c := s.Confidence; c.s != "" {
		if f.confidence, err = strconv.ParseFloat(c.s, 64); err != nil || !(f.confidence > 0 && f.confidence < 1) {
			return w, 0, c.line, fmt.Errorf("confidence %q: want a number between 0 and 1", c.s)
		}
	}
	req, all, err := f.request("")
	if err != nil {
		said := strings.TrimPrefix(strings.TrimSpace(err.Error()), ": ")
		at = max(s.Name.line, s.Program.line)
		for _, name := range slices.Sorted(maps.Keys(where)) {
			if strings.Contains(said, name) && where[name] > 0 {
				at = where[name]
			}
		}
		return w, 0, at, errors.New(strings.ReplaceAll(said, "--", ""))
	}
	w = stageWish{name: s.Name.s, program: besides(file, s.Program.s), from: s.From.strings(), by: f.by, request: req, auto: f.gas == "auto",
		whole: f.whole, shard: f.shard, partitions: s.Partitions, writes: s.Writes, providers: f.providers}
	for _, in := range s.Inputs {
		if in.s == "-" {
			return w, 0, in.line, errors.New("a job file's inputs are files, not stdin")
		}
		w.inputs = append(w.inputs, besides(file, in.s))
	}
	if w.writes == 0 {
		w.writes = 1
	}
	return w, all, 0, nil
}

var (
	unknownField = regexp.MustCompile(`^line (\d+): field (\S+) not found in type main\.(\w+)$`)
	wrongType    = regexp.MustCompile("^line (\\d+): cannot unmarshal !!(\\w+)(?: (`.*`))? into (\\S+)$")
	yamlLine     = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
)

// yamlError is what the library says, in the words of this program.
func yamlError(name string, err error) error {
	said := []string{err.Error()}
	var types *yaml.TypeError
	if errors.As(err, &types) {
		said = types.Errors
	}
	var all []error
	for _, line := range said {
		if m := unknownField.FindStringSubmatch(line); m != nil {
			all = append(all, fmt.Errorf("%s:%s: there is no %s here; known: %s", name, m[1], m[2], knownFields[m[3]]))
		} else if m := wrongType.FindStringSubmatch(line); m != nil {
			want := map[string]string{"uint64": "a whole number", "float64": "a number", "bool": "true or false", "[]main.jobStage": "a list of stages", "main.jobStage": "a table: name, program, …", "main.jobFile": "a table: stages, out, …"}[m[4]]
			got := m[3]
			if got == "" {
				got = map[string]string{"seq": "a list", "map": "a table", "str": "a text"}[m[2]]
			}
			all = append(all, fmt.Errorf("%s:%s: want %s, not %s", name, m[1], want, strings.Trim(got, "`")))
		} else if m := yamlLine.FindStringSubmatch(line); m != nil {
			all = append(all, fmt.Errorf("%s:%s: %s", name, m[1], m[2]))
		} else {
			all = append(all, fmt.Errorf("%s: %s", name, line))
		}
	}
	return errors.Join(all...)
}

// exactly reports whether equal results are equal to the byte.
func exactly(compare string) bool {
	c, err := crowd.ParseCompare(compare)
	return err == nil && c.Kind == crowd.CompareExact
}

// check holds the named files against the disk, before anything is begun.
func (w *flowWish) check(a *app) error {
	for _, s := range w.stages {
		if read := slices.ContainsFunc(w.stages, func(r stageWish) bool { return slices.Contains(r.from, s.name) }); (read || len(s.from) > 0) && !exactly(s.request.Compare) {
			return misuse("leave out compare where stages read each other", "stage %s: %s lets outputs differ, and what goes from stage to stage is compared byte for byte", s.name, s.request.Compare)
		}
		if _, err := a.readProgram(s.program, s.request.Limits.Memory); err != nil {
			return err
		}
		if err := a.checkComparator(s.request.Compare); err != nil {
			return err
		}
	}
	return nil
}
