// What the page knows: sums by edge, bounded in number and in age.

const mostEdges = 1500;

export const nodeKey = (n) => `${n.kind}|${n.namespace ?? ""}|${n.name}`;
export const verdictOf = (f) => (f.verdict === "deny" ? "deny" : f.audit || f.verdict === "audit" ? "audit" : "allow");

export function number(n) {
  if (n < 10 && n !== Math.round(n)) return n.toFixed(1);
  if (n < 10000) return String(Math.round(n));
  for (const unit of ["k", "M", "G"]) {
    n /= 1000;
    if (n < 1000) return n.toFixed(n < 100 ? 1 : 0) + unit;
  }
  return n.toFixed(0) + "T";
}

export function bytes(n) {
  if (n < 1024) return `${n} B`;
  for (const unit of ["KiB", "MiB", "GiB"]) {
    n /= 1024;
    if (n < 1024) return `${n.toFixed(1)} ${unit}`;
  }
  return `${(n / 1024).toFixed(1)} TiB`;
}

// ruleText names a rule as its author finds it in the object.
export function ruleText(ref) {
  const name = ref.namespace ? `${ref.namespace}/${ref.name}` : ref.name;
  return { kind: ref.kind, name, where: ref.rule < 0 ? `isolates the pod: no ${ref.direction} rule of it allows this` : `${ref.path || `spec.${ref.direction}`}[${ref.rule}]` };
}

// short says in one line who decided.
export function short(f) {
  const refs = f.decidedBy ?? [];
  if (refs.length && refs.every((r) => r.rule < 0 && r.direction === refs[0].direction)) {
    const ns = refs[0].namespace;
    return `default deny, ${refs[0].direction}: ${ns ? `${ns}/` : ""}${refs.map((r) => (r.namespace === ns ? r.name : `${r.namespace}/${r.name}`)).join(", ")}`;
  }
  if (refs.length) {
    return refs.map((r) => `${r.namespace ? `${r.namespace}/` : ""}${r.name} ${r.direction}${r.rule < 0 ? " (default deny)" : ` #${r.rule}`}`).join(", ");
  }
  if (f.text) return f.text;
  return f.reason === "ok" ? "no policy applies" : f.reason;
}

export class Model {
  constructor() { this.namespaces = new Set(); this.clear(); }

  clear() {
    this.edges = new Map(); // key → edge between two nodes, all ports
    this.totals = { allow: 0, deny: 0, audit: 0 };
    this.hidden = false;
    this.version = (this.version ?? 0) + 1; // of the set of edges
  }

  key(from, to, verdict) { return `${nodeKey(from)}>${nodeKey(to)}>${verdict}`; }
  edgeOf(f) { return this.key(f.from, f.to, verdictOf(f)); }

  add(m, windowSeconds) {
    const now = Date.now();
    this.hidden = this.hidden || m.hidden > 0;
    for (const e of m.edges) {
      this.totals[e.verdict] += e.flows;
      for (const n of [e.from, e.to]) if (n.namespace && this.namespaces.size < 1000) this.namespaces.add(n.namespace);
      const key = this.key(e.from, e.to, e.verdict);
      let edge = this.edges.get(key);
      if (!edge) {
        if (this.edges.size >= mostEdges) this.drop();
        edge = { key, from: e.from, to: e.to, verdict: e.verdict, flows: 0, packets: 0, bytes: 0, ports: new Map(), causes: new Map() };
        this.version++;
      }
      this.edges.delete(key); // to the end: the oldest come first
      this.edges.set(key, edge);
      edge.seen = now;
      edge.flows += e.flows; edge.packets += e.packets; edge.bytes += e.bytes;
      const port = e.port && !e.proto.startsWith("ICMP") ? `${e.proto} ${e.port}` : e.proto;
      tally(edge.ports, port, e.flows);
      const cause = JSON.stringify([e.decidedBy, e.text ?? "", e.reason]);
      if (e.flows || !edge.causes.size) tally(edge.causes, cause, e.flows);
    }
    for (const [key, edge] of this.edges) {
      if (now - edge.seen < windowSeconds * 1000) break;
      this.edges.delete(key);
      this.version++;
    }
  }

  drop() {
    this.hidden = true;
    this.edges.delete(this.edges.keys().next().value);
  }
}

// tally counts in a map that does not grow beyond 64.
function tally(map, key, n) {
  if (!map.has(key) && map.size >= 64) key = "others";
  map.set(key, (map.get(key) ?? 0) + n);
}
