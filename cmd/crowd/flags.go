package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// single is the value of a flag that is given at most once. Without it the last of two values would win in silence.
type single struct {
	pflag.Value
	hint string // what to do instead of giving it twice
	set  bool
}

// errTwice is why single refuses a second value.
type errTwice struct{ hint string }

func (e *errTwice) Error() string { return "given more than once" }

func (s *single) Set(value string) error {
	if s.set {
		return &errTwice{s.hint}
	}
	s.set = true
	return s.Value.Set(value)
}

// onlyOnce makes every flag below c that takes one value refuse a second one.
func onlyOnce(c *cobra.Command) {
	guard := func(f *pflag.Flag) {
		_, list := f.Value.(pflag.SliceValue)
		if _, guarded := f.Value.(*single); list || guarded || f.Value.Type() == "bool" {
			return
		}
		hint := ""
		if f.Name == "in" {
			hint = "put the files into a folder and say --in FOLDER: the program sees them in /in"
		}
		if f.DefValue == "0s" { // a help text knows by the type of Value alone that this is no default to name
			f.DefValue = "0"
		}
		f.Value = &single{Value: f.Value, hint: hint}
	}
	c.PersistentFlags().VisitAll(guard)
	c.Flags().VisitAll(guard)
	for _, below := range c.Commands() {
		onlyOnce(below)
	}
}

// flagError is err, of the parser of flags, in words for people.
func flagError(c *cobra.Command, err error) error {
	see := "see: " + c.CommandPath() + " --help"
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "" {
		var names []string
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		if near := nearest(unknown.GetSpecifiedName(), names); near != "" {
			return misuse(fmt.Sprintf("did you mean --%s? %s", near, see), "%v", err)
		}
	}
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	f := invalid.GetFlag()
	if twice := (*errTwice)(nil); errors.As(err, &twice) {
		if twice.hint != "" {
			see = twice.hint
		}
		return misuse(see, "%s: --%s is given more than once and takes one value; one of them is %q",
			strings.TrimPrefix(c.CommandPath(), "crowd "), f.Name, invalid.GetValue())
	}
	want, ok := wanted[f.Value.Type()]
	if !ok {
		return err
	}
	return misuse(see, "%s: --%s %q: want %s", strings.TrimPrefix(c.CommandPath(), "crowd "), f.Name, invalid.GetValue(), want)
}

// wanted says what a flag of each type takes.
var wanted = map[string]string{
	"bool": "true or false", "duration": "a time, as 90s, 5m or 1h30m", "float64": "a number, as 0.99",
	"int": "a whole number", "int64": "a whole number", "uint": "a whole number, not negative",
	"uint8": "a whole number from 0 to 255", "uint32": "a whole number, not negative", "uint64": "a whole number, not negative",
	"float64Slice": "numbers with commas between them", "intSlice": "whole numbers with commas between them",
}

// nearest is the name that somebody who typed word may have meant; "" if none is near.
func nearest(word string, names []string) string {
	best, least := "", 1+max(1, min(2, len(word)/3)) // one slip in a short word, two in a longer one
	for _, name := range names {
		d := slips(word, name)
		if len(word) > 2 && strings.HasPrefix(name, word) {
			d = 1
		}
		if d < least {
			best, least = name, d
		}
	}
	return best
}

// slips is how many letters must be put in, left out, replaced or swapped with the next one to make b of a.
func slips(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		for j := range d[i] {
			if i == 0 || j == 0 {
				d[i][j] = i + j
				continue
			}
			other := 1
			if a[i-1] == b[j-1] {
				other = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+other)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

// namesBelow are those of the commands below c that people see, with their other names.
func namesBelow(c *cobra.Command) (out []string) {
	for _, below := range c.Commands() {
		if below.IsAvailableCommand() {
			out = append(append(out, below.Name()), below.Aliases...)
		}
	}
	return out
}
