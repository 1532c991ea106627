/** The configuration: the promised shape is read, and every mistake is named with its place. */
import { deepEqual, equal, match, ok, throws } from "node:assert/strict";
import { checkConfig, describeConfig, loadConfig, parseConfig } from "../../../src/agent/config.ts";
import { formatProblem, nearest } from "../../../src/agent/config_problems.ts";
import type { PsmaError } from "../../../src/core/mod.ts";
import { tempDir } from "../../support/temp.ts";

const GiB = 1024 ** 3;
const STORES = "stores:\n  local: { type: embedded, path: /s }\n";

function accepted(text: string) {
  const { config, problems } = parseConfig(text, "/etc/psma");
  deepEqual(problems, []);
  ok(config);
  return config;
}

Deno.test("parseConfig() reads the promised shape with units turned into numbers", () => {
  const config = accepted(`
api: { listen: 127.0.0.1:9310, token_file: /var/lib/psma/api.token }
state_dir: /var/lib/psma
sampling: { interval: 5s }
forecast: { mode: local, horizon: 24h, level: 0.95 }
stores:
  local: { type: embedded, path: /var/lib/psma/volumes }
  far: { type: psma, url: https://store.example:9320/, token_file: far.token, ca_file: /etc/psma/far.pem }
volumes:
  data:
    store: local
    size: 10G
    max_size: 200GiB
    frontend: auto
    filesystem: { type: ext4, mount: /srv/data, grow: auto }
    profile: auto
    mirror: { store: far, rpo: 5m, max_rate: 50MiB/s, write_through_timeout: 200ms, backup: frozen }
    scale: { threshold: 80%, level: 0.95, step: 25%, cooldown: 1h, approve: advise }
`);
  deepEqual(config.api.listen, { host: "127.0.0.1", port: 9310 });
  equal(config.forecast.horizon_ms, 86_400_000);
  equal(config.forecast.interval_ms, 60_000);
  deepEqual(config.stores["far"], {
    type: "psma",
    url: "https://store.example:9320",
    token_file: "/etc/psma/far.token",
    ca_file: "/etc/psma/far.pem",
  });
  const data = config.volumes["data"];
  equal(data?.size_bytes, 10 * GiB);
  equal(data?.max_size_bytes, 200 * GiB);
  equal(data?.profile, "auto");
  deepEqual(data?.mirror, {
    store: "far",
    rpo_ms: 300_000,
    max_rate_bytes_per_s: 50 * 1024 ** 2,
    min_rate_bytes_per_s: 0,
    rate_windows: [],
    deadline_safety_ms: 60_000,
    durability: "power",
    write_through_timeout_ms: 200,
    backup: "frozen",
    failover_after_ms: 5000,
    verify: { every_ms: null, max_rate_bytes_per_s: null },
  });
  equal(data?.scale.threshold, 0.8);
  equal(data?.scale.step, 0.25);
  equal(data?.scale.approve, "advise");
});

Deno.test("parseConfig() refuses a volume that its mkfs would refuse, and names the least", () => {
  const volume = (type: string, size: string) =>
    checkConfig(
      `volumes: { data: { size: ${size}, filesystem: { type: ${type}, mount: /m } } }`,
    ).map(({ message }) => message);
  deepEqual(volume("xfs", "299MiB"), [
    "Cannot use volumes.data.size: xfs needs at least 300MiB",
  ]);
  deepEqual(volume("btrfs", "108MiB"), [
    "Cannot use volumes.data.size: btrfs needs at least 109MiB",
  ]);
  deepEqual(volume("ext4", "512KiB"), ["Cannot use volumes.data.size: it must be at least 1MiB"]);
  for (const [type, size] of [["xfs", "300MiB"], ["btrfs", "109MiB"], ["ext4", "1MiB"]] as const) {
    deepEqual(volume(type, size), []);
  }
});

Deno.test("parseConfig() reads hours with ceilings, floors and what a mirror survives", () => {
  const config = accepted(`stores: { local: { type: embedded, path: /v } }
volumes:
  data:
    size: 1GiB
    mirror:
      max_rate: 20MiB/s
      min_rate: 1MiB
      deadline_safety: 10m
      durability: process
      schedule:
        - { from: "22:00", to: "06:00", max_rate: auto }
        - { from: 00:00, to: 24:00, days: "sat-mon, wed", max_rate: 5MiB }
`);
  const mirror = config.volumes["data"]?.mirror;
  equal(mirror?.min_rate_bytes_per_s, 1024 ** 2);
  equal(mirror?.deadline_safety_ms, 600_000);
  equal(mirror?.durability, "process");
  deepEqual(mirror?.rate_windows, [
    {
      from_minute: 1320,
      to_minute: 360,
      days: [0, 1, 2, 3, 4, 5, 6],
      max_rate_bytes_per_s: null,
    },
    { from_minute: 0, to_minute: 1440, days: [0, 1, 3, 6], max_rate_bytes_per_s: 5 * 1024 ** 2 },
  ]);
});

Deno.test("loadConfig() says that a directory is none of its business", () => {
  using temp = tempDir();
  throws(() => loadConfig(temp.path), {
    code: "config/unreadable",
    message: `Cannot read configuration ${temp.path}: it is a directory`,
  });
});

Deno.test("parseConfig() fills in defaults, and an empty file is a configuration", () => {
  const empty = accepted("");
  equal(empty.state_dir, "/var/lib/psma");
  equal(empty.api.token_file, "/var/lib/psma/api.token");
  deepEqual(empty.stores, { local: { type: "embedded", path: "/var/lib/psma/volumes" } });

  const config = accepted(
    `state_dir: state\napi: { listen: "unix:/run/psma.sock" }\n${STORES}  far: { type: psma, url: http://127.0.0.1:1 }\n` +
      "volumes:\n  a: { size: 1GiB }\n",
  );
  equal(config.state_dir, "/etc/psma/state");
  deepEqual(config.api.listen, { path: "/run/psma.sock" });
  const a = config.volumes["a"];
  equal(a?.store, "local");
  equal(a?.mirror.store, "far");
  equal(a?.mirror.backup, "frozen");
  equal(a?.max_size_bytes, 10 * GiB);
  equal(a?.filesystem, null);
});

const VOLUME = `${STORES}volumes:\n  data:\n    size: 1GiB\n`;
const WINDOW = `${VOLUME}    mirror:\n      schedule:\n`;

/** What is written, where it is found, and the words that must be there. */
const MISTAKES: [what: string, text: string, at: string, message: RegExp][] = [
  [
    "unknown top key",
    "volums: {}\n",
    "1:1",
    /volums: it is not a known key \(Did you mean "volumes"/,
  ],
  ["unknown volume key", `${VOLUME}    sizee: 1\n`, "6:5", /data\.sizee: .*Did you mean "size"/],
  ["unknown scale key", `${VOLUME}    scale: { treshold: 1% }\n`, "6:14", /mean "threshold"/],
  ["key like nothing", `${VOLUME}    zzzzzzzzzzzzzz: 1\n`, "6:5", /Known here: store, size/],
  ["not a size", `${STORES}volumes:\n  d: { size: large }\n`, "4:14", /"large" is not a size/],
  [
    "size in bits",
    `${STORES}volumes:\n  d: { size: 1Gb }\n`,
    "4:14",
    /d\.size: the small b of "1Gb"/,
  ],
  ["size absent", `${STORES}volumes:\n  d: { store: local }\n`, "4:3", /d\.size: it is required/],
  ["size of nothing", `${STORES}volumes:\n  d: { size: 0 }\n`, "4:14", /at least 1MiB/],
  ["cap below size", `${VOLUME}    max_size: 1MiB\n`, "6:15", /below the size of 1GiB/],
  ["not a duration", "sampling: { interval: 5 }\n", "1:23", /"5" is not a duration/],
  ["interval too short", "sampling: { interval: 50ms }\n", "1:23", /at least 200ms/],
  ["not a share", `${VOLUME}    scale: { threshold: 180% }\n`, "6:25", /not between 0% and 100%/],
  ["level not upper", "forecast: { level: 0.3 }\n", "1:20", /above 50%/],
  ["step without unit", `${VOLUME}    scale: { step: 25 }\n`, "6:20", /not a percentage like 25%/],
  [
    "max_step below step",
    `${VOLUME}    scale: { step: 50%, max_step: 10% }\n`,
    "6:35",
    /at least 50%/,
  ],
  ["half a count", `${VOLUME}    scale: { debounce: 1.5 }\n`, "6:24", /whole number from 1 to 100/],
  ["no such store", `${VOLUME}    store: locall\n`, "6:12", /no store "locall" \(Stores: local/],
  ["no such mirror store", `${VOLUME}    mirror: { store: far }\n`, "6:22", /no store "far"/],
  ["too deep a queue", `${VOLUME}    queue_depth: 5000\n`, "6:18", /whole number from 1 to 1024/],
  ["misspelt frontend", `${VOLUME}    frontend: fues\n`, "6:15", /none of.*Did you mean "fuse"/],
  ["misspelt backup", `${VOLUME}    mirror: { backup: asinc }\n`, "6:23", /Did you mean "async"/],
  [
    "unknown window key",
    `${WINDOW}      - { from: "1:00", to: "2:00", max_rate: auto, on: x }\n`,
    "8:53",
    /known key/,
  ],
  [
    "time of no day",
    `${WINDOW}      - { from: "25:00", to: "2:00", max_rate: auto }\n`,
    "8:17",
    /UTC/,
  ],
  [
    "empty window",
    `${WINDOW}      - { from: "2:00", to: "2:00", max_rate: auto }\n`,
    "8:29",
    /empty/,
  ],
  ["no rate", `${WINDOW}      - { from: "1:00", to: "2:00" }\n`, "8:9", /max_rate: it is required/],
  [
    "no day",
    `${WINDOW}      - { from: "1:00", to: "2:00", max_rate: auto, days: [mon, tus] }\n`,
    "8:59",
    /"tus" is no day \(Days: sun/,
  ],
  [
    "windows as a mapping",
    `${VOLUME}    mirror: { schedule: { from: 1 } }\n`,
    "6:25",
    /not a list/,
  ],
  ["window as a word", `${WINDOW}      - night\n`, "8:9", /entry 1 is not a mapping/],
  [
    "floor above ceiling",
    `${VOLUME}    mirror: { max_rate: 1MiB, min_rate: 2MiB }\n`,
    "6:41",
    /above max_rate/,
  ],
  [
    "weak durability",
    `${VOLUME}    mirror: { durability: none }\n`,
    "6:27",
    /none of process, power/,
  ],
  ["remote model", "forecast: { mode: remote }\n", "1:19", /"remote" is not supported/],
  ["rbd store", "stores:\n  a: { type: rbd, pool: x }\n", "2:14", /"rbd" is not supported/],
  ["store type absent", "stores:\n  a: { path: /x }\n", "2:3", /stores\.a\.type: it is required/],
  ["store path absent", "stores:\n  a: { type: embedded }\n", "2:3", /a\.path: it is required/],
  ["store address", "stores:\n  a: { type: psma, url: far }\n", "2:25", /not an http or https/],
  ["open listener", "api: { listen: 0.0.0.0:9310 }\n", "1:16", /reachable from other machines/],
  ["no listener", "api: { listen: nowhere }\n", "1:16", /"nowhere" is not an address/],
  ["volume name", `${STORES}volumes:\n  Data: { size: 1G }\n`, "4:9", /not a valid name/],
  [
    "relative mount",
    `${VOLUME}    filesystem: { type: xfs, mount: d }\n`,
    "6:37",
    /not an absolute/,
  ],
  ["mount absent", `${VOLUME}    filesystem: { type: xfs }\n`, "6:5", /mount: it is required/],
  ["file system", `${VOLUME}    filesystem: { type: zfs, mount: /d }\n`, "6:25", /mean "xfs"/],
  [
    "file system over nbd",
    `${VOLUME}    frontend: nbd\n    filesystem: { type: xfs, mount: /d }\n`,
    "6:15",
    /no file system to mount/,
  ],
  ["no flag", `${VOLUME}    frontend: nbd\n    device: maybe\n`, "7:13", /neither true nor false/],
  ["a device without nbd", `${VOLUME}    device: true\n`, "6:13", /it is for frontend: nbd/],
  ["a list for a mapping", "volumes: [a]\n", "1:10", /not a mapping/],
  ["a mapping for a value", "state_dir: { a: 1 }\n", "1:12", /no plain value/],
  ["a sentence", "hello\n", "1:1", /not a mapping/],
  ["a key twice", "state_dir: /a\nstate_dir: /b\n", "2:1", /must be unique/],
  ["broken YAML", "volumes: {\n", "2:1", /Cannot read the configuration/],
];

for (const [what, text, at, message] of MISTAKES) {
  Deno.test(`checkConfig() names the fault and its place: ${what}`, () => {
    const problems = checkConfig(text);
    const [first] = problems;
    ok(first, "accepted");
    match(formatProblem(first, "f"), message);
    equal(`${first.line}:${first.column}`, at);
    match(first.code, /^config\//);
  });
}

Deno.test("checkConfig() tells every fault, in the order of the file", () => {
  const problems = checkConfig(
    `sampling: { interval: fast }\n${VOLUME}    frontend: usb\n    scale: { step: 1 }\n    x: 1\n`,
  );
  deepEqual(problems.map(({ path }) => path), [
    "sampling.interval",
    "volumes.data.frontend",
    "volumes.data.scale.step",
    "volumes.data.x",
  ]);
});

Deno.test("checkConfig() refuses one mount point for two volumes", () => {
  const filesystem = "filesystem: { type: xfs, mount: /d }";
  const [problem] = checkConfig(
    `${STORES}volumes:\n  a: { size: 1G, ${filesystem} }\n  b: { size: 1G, ${filesystem} }\n`,
  );
  equal(problem?.line, 5);
  match(problem?.message ?? "", /mount point of a too/);
});

Deno.test("parseConfig() reads NBD over TLS, for the agent's own port and for a store", () => {
  const tls = "{ cert_file: s.pem, key_file: /k.pem, client_ca_file: ca.pem }";
  const { nbd, stores } = accepted(`
nbd: { listen: "0.0.0.0:10809", host: node.example, tls: ${tls} }
stores:
  near: { type: embedded, path: /s }
  far: { type: psma, url: "https://s", ca_file: ca.pem, cert_file: c.pem, key_file: k.pem, server_name: n }
`);
  deepEqual(nbd, {
    listen: { host: "0.0.0.0", port: 10809 },
    tls: {
      cert_file: "/etc/psma/s.pem",
      key_file: "/k.pem",
      client_ca_file: "/etc/psma/ca.pem",
    },
    host: "node.example",
  });
  deepEqual(stores["far"], {
    type: "psma",
    url: "https://s",
    ca_file: "/etc/psma/ca.pem",
    cert_file: "/etc/psma/c.pem",
    key_file: "/etc/psma/k.pem",
    server_name: "n",
  });
  equal(accepted(STORES).nbd, null);
});

Deno.test("checkConfig() refuses NBD that others could reach, one sentence each", () => {
  const files = "cert_file: c, key_file: k";
  const cases: readonly [string, RegExp, RegExp][] = [
    ["nbd: { listen: 127.0.0.1:1 }", /Cannot use nbd\.tls: NBD on a port takes TLS/, /cert_file/],
    [
      `nbd: { listen: 192.0.2.7:1, tls: { ${files} } }`,
      /Cannot use nbd\.listen: whoever reaches it could read and write volumes/,
      /client_ca_file/,
    ],
    [`nbd: { listen: nonsense, tls: { ${files} } }`, /nbd\.listen: "nonsense" is not/, /192\.0/],
    [`nbd: { listen: /run/s, tls: { ${files} } }`, /nbd\.listen: it is not a port/, /Unix/],
    [
      `nbd: { listen: "[::1]:1", tls: { ${files}, client_ca: x } }`,
      /not a known key/,
      /client_ca_f/,
    ],
    ["nbd: { listen: '[::1]:1', tls: { cert_file: c } }", /nbd\.tls\.key_file: it is req/, /.*/],
    [
      "stores: { far: { type: psma, url: 'https://s', cert_file: c } }",
      /far\.key_file: cert_file and key_file go together/,
      /.*/,
    ],
  ];
  for (const [text, message, hint] of cases) {
    const problems = checkConfig(`${text}\n`);
    equal(problems.length, 1, text);
    match(problems[0]?.message ?? "", message);
    match(problems[0]?.hint ?? "", hint);
  }
});

Deno.test("loadConfig() throws with exit code 78 and all problems", () => {
  using temp = tempDir();
  const path = temp.file("psma.yaml");
  throws(() => loadConfig(path), { code: "config/missing-file" });
  Deno.writeTextFileSync(path, "volums: 1\nforecast: { mode: auto }\n");
  throws(() => loadConfig(path), (error: PsmaError) => {
    equal(error.code, "config/unknown-key");
    equal(error.meaning.exit, 78);
    match(error.message, /psma\.yaml:1:1: Cannot use volums/);
    match(error.hint ?? "", /psma\.yaml:2:19: .*"auto" is not supported/s);
    return true;
  });
});

Deno.test("loadConfig() reads the documented example", () => {
  const path = new URL("../../../docs/examples/psma.yaml", import.meta.url).pathname;
  const config = loadConfig(path);
  deepEqual(Object.keys(config.volumes), ["data"]);
  match(JSON.stringify(describeConfig(config)), /"size":"10GiB"/);
  // What is commented out shows the defaults: taken in, it changes nothing but what has none.
  const text = Deno.readTextFileSync(path).replace(/^( +)# (\w+: .*)$/gm, "$1$2");
  const whole = parseConfig(text, "/etc/psma");
  deepEqual(whole.problems, []);
  const { stores: _, api, ...rest } = whole.config ?? {};
  const { stores: __, api: defaultApi, ...defaults } = config;
  deepEqual([rest, api], [defaults, defaultApi]);
});

Deno.test("nearest() finds swapped and missing letters, and nothing for a stranger", () => {
  const keys = ["size", "max_size", "store", "scale"];
  equal(nearest("sotre", keys), "store");
  equal(nearest("maxsize", keys), "max_size");
  equal(nearest("sclae", keys), "scale");
  equal(nearest("zzzzzzzz", keys), undefined);
});
