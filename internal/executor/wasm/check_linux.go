package wasm

import (
	"fmt"
	"slices"

	"github.com/crowdcompute/crowd/internal/executor"
	"github.com/crowdcompute/crowd/internal/executor/wasm/instrument"
)

// Check says why program is none that an executor runs, without running it; nil if it is one. Executors of the same
// rules find the same.
func Check(program []byte) error {
	if len(program) > executor.MaxProgram {
		return fmt.Errorf("%w: %d bytes, at most %d", errModule, len(program), executor.MaxProgram)
	}
	_, _, err := prepare(program)
	return err
}

// prepare checks and instruments a program, and says what it costs before it runs.
func prepare(program []byte) (module []byte, p price, err error) {
	module, info, err := instrument.Module(program, instrument.Options{MaxModule: executor.MaxProgram, Imports: checkImport})
	if err != nil {
		return nil, p, err
	}
	plain := func(name string) bool {
		return slices.ContainsFunc(info.Exports,
			func(x instrument.Export) bool { return x.Name == name && x.Kind == 0 && x.Plain })
	}
	if !startable(plain) {
		return nil, p, errNoStart
	}
	return module, price{Memory: uint64(info.MinPages) << 16, Code: info.Code, Begin: info.Begin,
		Effort: info.Effort}, nil
}
