package api

import (
	"context"
	"net/http"
	"net/netip"
	"time"
)

// Name is an address that a name resolved to.
type Name struct {
	Name      string     `json:"name"` // without its final dot
	Address   netip.Addr `json:"address"`
	Namespace string     `json:"namespace"` // of the pod that asked
	Pod       string     `json:"pod"`
	Resolver  netip.Addr `json:"resolver"` // that answered
	Learned   time.Time  `json:"learned"`
	Until     time.Time  `json:"until"`
	InUse     bool       `json:"inUse"` // kept beyond Until, for a connection uses it
}

// Names is an Agent that learns names.
type Names interface{ Names() []Name }

func nameRoutes(mux *http.ServeMux, n Names) {
	mux.HandleFunc("GET /v1/names", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, n.Names()) })
}

// Names asks for what names resolve to.
func (c *Client) Names(ctx context.Context) ([]Name, error) {
	var n []Name
	return n, c.get(ctx, "/v1/names", &n)
}
