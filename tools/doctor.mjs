/**
 * npm run doctor: looks at everything that the apps need, and says what is wrong, why it matters and what to do. In the
 * environment that it is given; where that names neither NATS nor a database, or those of `npm start`, in that of
 * `npm start`.
 */
import { build } from './build.mjs';
import { developmentEnvironment } from './gateway.mjs';
import { STACK_DEFAULTS } from './stack.mjs';

const { NATS_URL, DATABASE_URL, NODE_ENV } = process.env;
const running = developmentEnvironment();
const nothingNamed = !NATS_URL && !DATABASE_URL;
// A shell that has sourced dev.env, as the README says to, names the same ones.
const sameNamed = NATS_URL === running.NATS_URL && DATABASE_URL === running.DATABASE_URL;
if (running.NATS_URL && NODE_ENV !== 'production' && (nothingNamed || sameNamed)) {
  const wanted = ['NATS_URL', 'DATABASE_URL', 'JWT_SECRET', 'KEY_SECRET'];
  for (const name of wanted) process.env[name] ||= running[name];
  for (const [name, value] of Object.entries(STACK_DEFAULTS)) process.env[name] ||= value;
}
try {
  await build({ quiet: true });
  process.argv.splice(2, 0, 'doctor');
  await import(new URL('../docker/run.mjs', import.meta.url).href);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
