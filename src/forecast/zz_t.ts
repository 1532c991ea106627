import { Database } from "./database.ts";
const p = "/tmp/w/forecast/x.db";
console.time("open");
const db = await Database.open({ path: p, memory_limit_mib: 512 });
console.timeEnd("open");
try {
  console.log(db.rows("select * from t limit 2"));
} catch (e) {
  console.log(String(e));
}
db.run("create or replace table t(a bigint, b double); insert into t values (1,2.5),(2,3)");
console.log(db.rows("select a,b,a::varchar c, [1.5,2.5] l from t where a>=?", 1));
let big = Array.from({ length: 50000 }, (_, i) => i + Math.random());
console.time("ins");
db.rows(
  "insert into t select unnest(?::double[])::bigint, unnest(?::double[])",
  "[" + big.join(",") + "]",
  "[" + big.join(",") + "]",
);
console.timeEnd("ins");
console.log(db.row("select count(*) c, sum(b) s from t"), big.reduce((a, b) => a + b, 0));
console.time("ck");
db.checkpoint();
console.timeEnd("ck");
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
console.log(db.row("select max(b) b from t"));
db.close();
