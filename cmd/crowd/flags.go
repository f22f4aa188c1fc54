package main

import (
	"errors"
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
	return err
}
