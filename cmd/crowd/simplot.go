package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// published are the lookups that succeed in Baumgart and Mies, "S/Kademlia", ICPADS 2007, with d = 8 and
// 10,000 nodes, as far as the text states them: share of adversaries, share of success, in percent.
func published() plotter.XYs { return plotter.XYs{{X: 20, Y: 99}, {X: 50, Y: 85}} }

// plotCells draws success against the share of attackers, a line for each number of paths, with the
// 95 % interval, beside what the paper states.
func plotCells(name string, cells []simCell) error {
	p := plot.New()
	p.Title.Text = fmt.Sprintf("Lookups that find their target, %d nodes, churn: %s", cells[0].Nodes, cells[0].Churn)
	p.X.Label.Text, p.Y.Label.Text = "colluding nodes (%)", "found (%)"
	p.Legend.Left = true
	p.Add(plotter.NewGrid())
	colors := []color.Color{color.RGBA{0xd9, 0x5f, 0x02, 0xff}, color.RGBA{0x75, 0x70, 0xb3, 0xff}, color.RGBA{0x1b, 0x9e, 0x77, 0xff}, color.RGBA{0x22, 0x22, 0x22, 0xff}}
	least := 84.0
	n := 0
	for _, paths := range pathsOf(cells) {
		var line errorPoints
		for _, c := range cells {
			if c.Paths == paths {
				line.XYs = append(line.XYs, plotter.XY{X: 100 * c.Adversaries, Y: 100 * c.Success})
				line.YErrors = append(line.YErrors, struct{ Low, High float64 }{100 * (c.Success - c.Low), 100 * (c.High - c.Success)})
				least = min(least, 100*c.Low)
			}
		}
		l, points, err := plotter.NewLinePoints(line.XYs)
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		bars, err := plotter.NewYErrorBars(line)
		if err != nil {
			return fmt.Errorf("plot: %w", err)
		}
		l.Color, points.Color, bars.Color = colors[n%len(colors)], colors[n%len(colors)], colors[n%len(colors)]
		n++
		p.Add(l, points, bars)
		p.Legend.Add(fmt.Sprintf("d = %d", paths), l, points)
	}
	paper, err := plotter.NewScatter(published())
	if err != nil {
		return fmt.Errorf("plot: %w", err)
	}
	paper.Shape, paper.Radius = draw.CrossGlyph{}, vg.Points(5)
	p.Add(paper)
	p.Legend.Add("S/Kademlia 2007, d = 8, 10,000 nodes", paper)
	p.Y.Min, p.Y.Max = least-1, 100.5
	if err := p.Save(18*vg.Centimeter, 11*vg.Centimeter, name); err != nil {
		return fmt.Errorf("plot %s: %w", name, err)
	}
	return nil
}

type errorPoints struct {
	plotter.XYs
	plotter.YErrors
}

func pathsOf(cells []simCell) (out []int) {
	seen := map[int]bool{}
	for _, c := range cells {
		if !seen[c.Paths] {
			seen[c.Paths] = true
			out = append(out, c.Paths)
		}
	}
	return out
}
