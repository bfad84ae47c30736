/**
 * What the image runs: `gateway`, `auth`, `registry` or `notifier` starts that app; `migrate` brings the database up to
 * date for all of them, and ends; `doctor` looks at what they need, says what is wrong, and ends. The app runs in this
 * very process, so that signals reach it.
 */
const APPS = ['gateway', 'auth', 'registry', 'notifier'];
const WITH_DATABASE = ['auth', 'registry', 'notifier'];

const [what = '', ...rest] = process.argv.slice(2);
if (what === 'doctor') await doctor(rest);
else if (rest.length === 0 && APPS.includes(what)) await import(`../dist/apps/${what}/src/main.js`);
else if (rest.length === 0 && what === 'migrate') await migrate();
else {
  console.error(
    `Got "${[what, ...rest].join(' ')}", wants one of ${APPS.join(', ')}, or migrate, or doctor. Configuration comes by environment.`,
  );
  process.exitCode = 2;
}

async function migrate() {
  // The first process of a container ignores signals that it has no handler for. Cut short is not done: not code 0.
  for (const [signal, number] of /** @type {const} */ (Object.entries({ SIGTERM: 15, SIGINT: 2 })))
    process.once(signal, () => process.exit(128 + number));
  for (const app of WITH_DATABASE) await import(`../dist/apps/${app}/src/migrate.js`);
}

/** @param {string[]} args names of apps, all where there are none; --json, --strict */
async function doctor(args) {
  // Not by literal names: what is not built yet would not type-check.
  const load = (/** @type {string} */ path) => import(`../dist/${path}`);
  const { runDoctor } = await load('libs/service/src/index.js');
  const examinations = APPS.map((app) => [
    app,
    async () => (await load(`apps/${app}/src/doctor.js`)).examine,
  ]);
  process.exitCode = await runDoctor({
    args,
    env: process.env,
    apps: Object.fromEntries(examinations),
    command:
      process.env.npm_lifecycle_event === 'doctor' ? 'npm run doctor --' : 'node docker/run.mjs doctor',
  });
}
