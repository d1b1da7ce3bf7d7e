package scenario

import "context"

// ceiling is no system: packets are counted and dropped where they leave pod A,
// at the host's end of its link. No system can be measured to be faster than
// that, and where one comes near, its number says more of the generator.
var ceiling = System{
	Name:  Ceiling,
	About: "no system: packets are counted and dropped at the host's end of pod A's link, so that this is what the generator reaches",
	Open:  true, Blind: true,
	Start: func(context.Context, *Stage) (Running, error) { return idle{}, nil }, // the sink is the workload's
}
