package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// PolicyKey names one object of a policy language.
type PolicyKey struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String returns "Kind namespace/name".
func (k PolicyKey) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// The states of a policy.
const (
	PolicyEnforced = "enforced" // as written
	PolicyAudit    = "audit"    // denials are reported, not enforced
	PolicyStaged   = "staged"   // judged beside what is in force
	PolicyPartly   = "partly"   // some of it is rejected, the rest is in force
	PolicyOutdated = "outdated" // the latest version is rejected: the last valid one is in force, and what both close is closed
	PolicyRejected = "rejected" // not valid: what it would close is closed
	PolicyPending  = "pending"  // this version is not in force yet
)

// Policy is one object of a policy language and what became of it.
type Policy struct {
	PolicyKey
	State string `json:"state"`
	// Source is what it was compiled from: a file, or apiVersion and
	// resourceVersion.
	Source     string      `json:"source,omitempty"`
	Endpoints  []string    `json:"endpoints"` // pods of this node that it selects
	Hits       Hits        `json:"hits"`      // of all of its rules
	Parts      []Part      `json:"parts"`     // one, of most languages
	Rejections []Rejection `json:"rejections,omitempty"`
}

// Part is a policy of the model that policies of all languages are turned into.
type Part struct {
	// Place is where it stands in the order of judgement of all policies that
	// are known: 1 is judged first.
	Place     int      `json:"place"`
	Tier      string   `json:"tier"`
	TierOrder float64  `json:"tierOrder"`
	Order     float64  `json:"order"` // within the tier
	Subject   []string `json:"subject"`
	Closes    bool     `json:"closes,omitempty"` // it stands for a version that is not valid
	Ingress   *Section `json:"ingress,omitempty"`
	Egress    *Section `json:"egress,omitempty"`
}

// Section is what a Part says of one direction.
type Section struct {
	Rules   []PolicyRule `json:"rules"`
	Default string       `json:"default"` // deny, or pass: for what no rule matches
	Hits    Hits         `json:"hits"`    // of the default, of all policies that isolate together
}

// PolicyRule is one rule of a Section.
type PolicyRule struct {
	Rule   int      `json:"rule"`           // index in its list
	Path   string   `json:"path,omitempty"` // of the list, if not spec.ingress or spec.egress
	Action string   `json:"action"`
	Log    bool     `json:"log,omitempty"`
	Peers  []string `json:"peers"` // any of them
	Ports  []string `json:"ports"` // any of them
	And    []string `json:"and,omitempty"`
	Not    []string `json:"not,omitempty"`
	Hits   Hits     `json:"hits"`
}

// Hits counts verdicts of this agent's life: flows that were allowed or
// audited, packets that were denied.
type Hits struct {
	Allowed uint64     `json:"allowed"`
	Denied  uint64     `json:"denied"`
	Audited uint64     `json:"audited"`
	Last    *time.Time `json:"last,omitempty"`
}

// Which selects policies; what is empty selects all.
type Which struct{ Kind, Namespace, Name string }

// WaitFor is what to wait for: a generation, a policy, or both.
type WaitFor struct {
	Generation uint64 // published, or a later one
	// Policy is in force, or with Gone isn't any more. Its Kind may be empty: any.
	Policy PolicyKey
	Gone   bool
	// ResourceVersion, if not empty, is the version of the policy that it has to
	// be, or a later one. A cluster only.
	ResourceVersion string
	Timeout         time.Duration
}

// Waited is what holds after a wait.
type Waited struct {
	Generation uint64      `json:"generation"`
	Policies   []PolicyKey `json:"policies,omitempty"` // that were waited for
}

// DefaultTimeout is that of a WaitFor that says nothing else.
const DefaultTimeout = 30 * time.Second

func policyRoutes(mux *http.ServeMux, agent Agent) {
	mux.HandleFunc("GET /v1/policies", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, agent.Policies(Which{r.FormValue("kind"), r.FormValue("namespace"), r.FormValue("name")}))
	})
	mux.HandleFunc("GET /v1/wait", func(w http.ResponseWriter, r *http.Request) {
		want, err := waitFor(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), want.Timeout)
		defer cancel()
		got, err := agent.Wait(ctx, want)
		if err != nil {
			http.Error(w, missing(err), http.StatusGatewayTimeout)
			return
		}
		writeJSON(w, got)
	})
}

func waitFor(r *http.Request) (w WaitFor, err error) {
	w.Policy = PolicyKey{r.FormValue("kind"), r.FormValue("namespace"), r.FormValue("name")}
	w.ResourceVersion, w.Timeout = r.FormValue("resourceVersion"), DefaultTimeout
	var errs []error
	if s := r.FormValue("generation"); s != "" {
		if w.Generation, err = strconv.ParseUint(s, 10, 64); err != nil {
			errs = append(errs, fmt.Errorf("generation: %w", err))
		}
	}
	if s := r.FormValue("timeout"); s != "" {
		if w.Timeout, err = time.ParseDuration(s); err != nil || w.Timeout < 0 {
			errs = append(errs, fmt.Errorf("timeout %q: want a duration like 30s", s))
		}
	}
	if w.Gone, err = flag(r.FormValue("gone")); err != nil {
		errs = append(errs, fmt.Errorf("gone: %w", err))
	}
	if s := w.ResourceVersion; s != "" {
		if _, err := strconv.ParseUint(s, 10, 64); err != nil {
			errs = append(errs, fmt.Errorf("resourceVersion: %w", err))
		}
	}
	if w.Policy.Name == "" && w.Generation == 0 {
		errs = append(errs, errors.New("want a generation or the name of a policy"))
	}
	return w, errors.Join(errs...)
}

// Policies asks for policies, in the order of judgement.
func (c *Client) Policies(ctx context.Context, of Which) ([]Policy, error) {
	var p []Policy
	q := url.Values{"kind": {of.Kind}, "namespace": {of.Namespace}, "name": {of.Name}}
	return p, c.get(ctx, "/v1/policies?"+q.Encode(), &p)
}

// Wait returns once what w describes is in force. ErrNotInForce says that this
// didn't happen in time.
func (c *Client) Wait(ctx context.Context, w WaitFor) (Waited, error) {
	var got Waited
	q := url.Values{"kind": {w.Policy.Kind}, "namespace": {w.Policy.Namespace}, "name": {w.Policy.Name},
		"gone": {strconv.FormatBool(w.Gone)}, "resourceVersion": {w.ResourceVersion}, "timeout": {w.Timeout.String()},
		"generation": {strconv.FormatUint(w.Generation, 10)}}
	return got, c.get(ctx, "/v1/wait?"+q.Encode(), &got)
}
