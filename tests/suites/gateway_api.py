#!/usr/bin/env python3
"""Drives the Kubernetes Gateway API's HTTPRoute cases through a Banyan that runs on each test's routes, translated.

usage: gateway_api.py GWAPI.PY GWAPI.JSON BANYAN [TEST...]

GWAPI.PY judges the cases and GWAPI.JSON holds them (see docs/conformance.md). Prints passed/all of each test, each case that went
otherwise, and last the sums. What a route asks for that the language does not have is left out of its translation and named.
"""
import importlib.util, json, os, random, re, signal, socket, ssl, subprocess, sys, tempfile, time, urllib.request

ECHO = 18200  # The first of four echo services, as the judge expects them.
# Tests that need a cluster, grants between namespaces, or routes that are bound to listeners.
NOT_PORTABLE = re.compile(r"https-listener|invalid|reference-grant|listener-|multiple-gateways|hostname-intersection|cross-namespace")
# Tests of what the language does not have yet; their cases count as not passed.
NOT_YET = {"request-header-modifier": "transforms headers", "request-header-modifier-backend-weights": "transforms headers",
           "response-header-modifier": "transforms headers", "request-mirror": "shadow traffic",
           "request-multiple-mirrors": "shadow traffic", "request-percentage-mirror": "shadow traffic"}
SCHEME_PORTS = {"http": 80, "https": 443}
# The listeners of the suite's base manifests that routes here refer to.
LISTENERS = {"same-namespace-with-http-listener-on-8080": ("http", 8080), "same-namespace-with-https-listener": ("https", 443)}


def free_port():
    """Below the range of outgoing connections, so that none of them takes it before the gateway does."""
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)): return port


def conditions(found, kind):
    """Header or query conditions. Of conditions that name the same header twice, the first counts, as the API says."""
    exact = lambda c: {"regex": c["value"]} if c.get("type") == "RegularExpression" else c["value"]
    of = {}
    for c in found.get(kind) or []:
        of.setdefault(c["name"].lower() if kind == "headers" else c["name"], exact(c))
    return of


def match(hosts, found):
    """One of a rule's matches as `match`, and the prefix it takes."""
    path = found.get("path") or {}
    value, kind = path.get("value", "/"), path.get("type", "PathPrefix")
    m = {"hosts": hosts} if hosts else {}
    if kind == "RegularExpression": m["path_regex"] = value
    elif kind == "Exact": m["path"] = value
    else: m["path"] = value.rstrip("/") + "/**"
    if found.get("method"): m["methods"] = [found["method"]]
    for kind, key in (("headers", "headers"), ("queryParams", "query")):
        if found.get(kind): m[key] = conditions(found, kind)
    return m, value.rstrip("/")


def redirect(f, m, prefix, listener):
    """`to: redirect`. The API leaves out a scheme's own port and takes the listener's where neither port nor scheme is named."""
    scheme, port = f.get("scheme"), f.get("port")
    port = port or (SCHEME_PORTS[scheme] if scheme else listener[1])
    at = "" if port == SCHEME_PORTS[scheme or listener[0]] else ":%d" % port
    path, new = f.get("path"), "{path}"
    if path and path["type"] == "ReplaceFullPath": new = path["replaceFullPath"]
    elif path:
        m["path_regex"] = re.escape(m.pop("path")[: -len("/**")]) + "(?<rest>/.*)?"
        new = path["replacePrefixMatch"].rstrip("/") + "{rest}"
    location = "%s://%s%s%s" % (scheme or "{scheme}", f.get("hostname", "{host}"), at, new)
    return {"redirect": {"status": f.get("statusCode", 302), "location": location}}


def rewrite(f, prefix):
    r, path = {}, f.get("path")
    if f.get("hostname"): r["host"] = f["hostname"]
    if path and path["type"] == "ReplaceFullPath": r["path"] = path["replaceFullPath"]
    elif path:
        r["strip_prefix"] = prefix
        if path["replacePrefixMatch"].strip("/"): r["add_prefix"] = path["replacePrefixMatch"]
    return r


def cors(f):
    keys = {"allowOrigins": "origins", "allowMethods": "methods", "allowHeaders": "headers", "exposeHeaders": "expose"}
    c = {ours: f[theirs] for theirs, ours in keys.items() if f.get(theirs)}
    if f.get("allowCredentials"): c["credentials"] = True
    if f.get("maxAge"): c["max_age"] = "%ds" % f["maxAge"]
    return c


def any_with_credentials(f):
    """What Banyan refuses to load: every page of the web could act in the user's name."""
    return f.get("allowCredentials") and "*" in f["allowOrigins"]


def route(rule, hosts, found, listener, lacks):
    """A route for one match of a rule."""
    m, prefix = match(hosts, found)
    backends = rule.get("backendRefs") or []
    r = {"match": m}
    name = lambda b: "v" + b["name"][-1]
    if not backends: r["to"] = {"respond": {"status": 500}}
    elif len(backends) == 1: r["to"] = {"upstream": name(backends[0])}
    else: r["to"] = {"split": [{"upstream": name(b), "weight": b.get("weight", 1)} for b in backends]}
    for f in (rule.get("filters") or []) + [f for b in backends for f in b.get("filters") or []]:
        kind = f["type"]
        if kind == "RequestRedirect": r["to"] = redirect(f["requestRedirect"], m, prefix, listener)
        elif kind == "URLRewrite": r["rewrite"] = rewrite(f["urlRewrite"], prefix)
        elif kind == "CORS" and any_with_credentials(f["cors"]): lacks.add("credentials for any origin")
        elif kind == "CORS": r["policies"] = {"cors": cors(f["cors"])}
        else: lacks.add(kind)
    timeouts = {ours: (rule.get("timeouts") or {}).get(theirs, "0s") for theirs, ours in (("request", "request"), ("backendRequest", "response"))}
    timeouts = {k: v for k, v in timeouts.items() if v != "0s"}
    if timeouts: r["timeouts"] = timeouts
    return r


def routes(test, gateway, listener, lacks):
    """The routes of a test that are bound to this gateway, named so that a tie goes to the first rule."""
    of = {}
    for i, o in enumerate(o for o in test["objects"] if o["kind"] == "HTTPRoute"):
        if all(p["name"] != gateway for p in o["spec"]["parentRefs"]): continue
        for j, rule in enumerate(o["spec"].get("rules") or []):
            for k, found in enumerate(rule.get("matches") or [{}]):
                of["r%d-%02d-%d" % (i, j, k)] = route(rule, o["spec"].get("hostnames"), found, listener, lacks)
    return of


def config(routes, port, admin, tls):
    listener = {"address": "127.0.0.1:%d" % port}
    if tls: listener["tls"] = {"certificates": [{"cert": "cert.pem", "key": "key.pem"}], "misdirected": "serve"}
    upstreams = {"v%d" % (n + 1): {"endpoints": ["127.0.0.1:%d" % (ECHO + n)]} for n in range(3)}
    return {"listeners": {"web": listener}, "admin": {"address": "127.0.0.1:%d" % admin}, "upstreams": upstreams, "routes": routes}


class Banyan:
    """A gateway on these routes, ready when entered."""
    def __init__(self, binary, routes, tls):
        self.binary, self.routes, self.tls, self.port, self.admin = binary, routes, tls, free_port(), free_port()
        self.dir = tempfile.TemporaryDirectory()

    def __enter__(self):
        inside = lambda name: os.path.join(self.dir.name, name)
        if self.tls: subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=example.org", "-keyout", inside("key.pem"), "-out", inside("cert.pem")], check=True, capture_output=True)
        with open(inside("banyan.yaml"), "w") as f: json.dump(config(self.routes, self.port, self.admin, self.tls), f, indent=1)
        self.process = subprocess.Popen([self.binary, "run", "-c", inside("banyan.yaml")], stdout=subprocess.DEVNULL, stderr=open(inside("err"), "w"))
        deadline = time.time() + 10
        while not self.ready():
            if time.time() > deadline or self.process.poll() is not None: sys.exit(open(inside("err")).read())
            time.sleep(.02)
        return "127.0.0.1:%d" % self.port

    def ready(self):
        try: return urllib.request.urlopen("http://127.0.0.1:%d/readyz" % self.admin, timeout=1).status == 200
        except OSError: return False

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.dir.cleanup()


def gateways(test):
    """The gateways that a test's routes are bound to, in order."""
    names = [p["name"] for o in test["objects"] if o["kind"] == "HTTPRoute" for p in o["spec"]["parentRefs"]]
    return list(dict.fromkeys(names))


def cases_of(test, gateways):
    """The cases by gateway. The suite writes them as one list a gateway; only one test has several, told by the lists' lengths."""
    if len(gateways) == 1: return [test["cases"]]
    assert test["name"].endswith("redirect-port-and-scheme") and len(test["cases"]) == 15
    return [test["cases"][:6], test["cases"][6:9], test["cases"][9:]]


def valid_values(case, address, connection):
    """What the judge does not look at: header values of which the suite allows several."""
    request, response = case["Request"], case.get("Response") or {}
    allowed = response.get("ValidHeaderValues")
    if not allowed: return []
    client = connection(*address.split(":"), timeout=8)
    client.request(request.get("Method") or "GET", request["Path"], headers=request.get("Headers") or {})
    answer = client.getresponse()
    answer.read()
    bare = lambda value: value.replace(" ", "") if value is not None else None
    seen = {name: answer.getheader(name) for name in allowed}
    return ["%s=%r want one of %s" % (n, seen[n], vs) for n, vs in allowed.items() if bare(seen[n]) not in [bare(v) for v in vs]]


def run(judge, test, binary):
    """Passed cases, complaints, filters that the language lacks."""
    passed, complaints, lacks, names = 0, [], set(), gateways(test)
    plain = judge.http.client.HTTPConnection
    for gateway, cases in zip(names, cases_of(test, names)):
        listener = LISTENERS.get(gateway, ("http", 80))
        tls = listener[0] == "https"
        unverified = lambda *a, **k: judge.http.client.HTTPSConnection(*a, context=ssl._create_unverified_context(), **k)
        with Banyan(binary, routes(test, gateway, listener, lacks), tls) as address:
            for case in cases:
                judge.http.client.HTTPConnection = unverified if tls else plain
                try: bad = judge.one(case, address) + valid_values(case, address, judge.http.client.HTTPConnection)
                except Exception as e: bad = ["%s: %s" % (type(e).__name__, e)]
                finally: judge.http.client.HTTPConnection = plain
                passed += not bad
                if bad: complaints.append("%s: %s" % (json.dumps(case["Request"]), "; ".join(bad)))
    return passed, complaints, lacks


def main():
    spec = importlib.util.spec_from_file_location("gwapi", sys.argv[1])
    judge = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(judge)
    wanted = sys.argv[4:]
    tests = [t for t in json.load(open(sys.argv[2])) if t["cases"] and not NOT_PORTABLE.search(t["name"])]
    judge.http.server.ThreadingHTTPServer.handle_error = lambda *_: None  # A timeout breaks the echo's pipe, as it should.
    judge.echo(ECHO, block=False)
    sums = [0, 0]
    for test in tests:
        name = test["name"].removeprefix("httproute-")
        if wanted and name not in wanted: continue
        if name in NOT_YET:
            sums[1] += len(test["cases"])
            print("%-40s 0/%d not yet: %s" % (name, len(test["cases"]), NOT_YET[name]))
            continue
        passed, complaints, lacks = run(judge, test, sys.argv[3])
        sums = [sums[0] + passed, sums[1] + len(test["cases"])]
        print("%-40s %d/%d %s" % (name, passed, len(test["cases"]), "lacks " + ", ".join(sorted(lacks)) if lacks else ""), flush=True)
        for complaint in complaints: print("    " + complaint)
    print("gateway-api %d/%d" % tuple(sums))


main()
