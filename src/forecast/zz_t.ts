import { Database } from "./database.ts";
const p = "/tmp/w/forecast/x.db";
try {
  Deno.removeSync(p);
} catch {}
const db = await Database.open({ path: p, memory_limit_mib: 512 });
db.run("create or replace table t(a bigint, b double); insert into t values (1,2.5),(2,3)");
let big = Array.from({ length: 20000 }, (_, i) => i + Math.random());
const L = "[" + big.join(",") + "]";
let t = performance.now();
const lap = (n: string) => {
  const u = performance.now();
  console.log(n, (u - t).toFixed(1));
  t = performance.now();
};
db.run(`insert into t select unnest('${L}'::double[])::bigint, unnest('${L}'::double[])`);
lap("strlist 20k");
db.run(`insert into t select unnest('${L}'::double[])::bigint, unnest('${L}'::double[])`);
lap("strlist 20k");
db.run(`insert into t select unnest(${L}::double[])::bigint, unnest(${L}::double[])`);
lap("litlist 20k");
db.run(`insert into t values ${big.map((x) => `(${Math.trunc(x)},${x})`).join(",")}`);
lap("values 20k");
console.log(db.row("select count(*) c, sum(b) s from t"), 4 * big.reduce((a, b) => a + b, 0) + 5.5);
lap("");
db.checkpoint();
lap("ck");
for (
  const q of [
    "select * from read_csv('/etc/passwd')",
    "copy t to 'x.parquet'",
    "set memory_limit='3GB'",
  ]
) {
  try {
    db.run(q);
  } catch (e) {
    console.log(String(e));
  }
}
lap("bad");
// list_reduce cost
db.run(`create temp table y as select i, sin(i/10.0)+i*0.01 v from range(2000) r(i)`);
db.run(
  `create temp table rr as select a/20.0 alpha, 0.1 beta, 0.95 phi, (select list(v order by i) from y) ys from range(1,20) r(a)`,
);
lap("prep");
for (const rows of [1, 19, 190]) {
  console.log(
    db.row(
      `select sum(r.l) s from (select list_reduce(list_transform(ys, x->{'l':x,'b':0.0::double}), (s,x)-> {'l': alpha*x.l+(1-alpha)*(s.l+phi*s.b), 'b': beta*((alpha*x.l+(1-alpha)*(s.l+phi*s.b))-s.l)+(1-beta)*phi*s.b}) r from (select rr.* from rr, range(10) limit ${rows}))`,
    ),
  );
  lap("reduce rows " + rows);
}
db.close();
