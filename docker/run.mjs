/**
 * What the image runs: `gateway`, `auth`, `registry` or `notifier` starts that app; `migrate` brings the database up to
 * date for all of them, and ends. The app runs in this very process, so that signals reach it.
 */
const APPS = ['gateway', 'auth', 'registry', 'notifier'];
const WITH_DATABASE = ['auth', 'registry', 'notifier'];

const [what = '', ...rest] = process.argv.slice(2);
if (rest.length === 0 && APPS.includes(what)) await import(`../dist/apps/${what}/src/main.js`);
else if (rest.length === 0 && what === 'migrate') await migrate();
else {
  console.error(
    `Got "${[what, ...rest].join(' ')}", wants one of ${APPS.join(', ')}, or migrate. Configuration comes by environment.`,
  );
  process.exitCode = 2;
}

async function migrate() {
  // The first process of a container ignores signals that it has no handler for. Cut short is not done: not code 0.
  for (const [signal, number] of /** @type {const} */ (Object.entries({ SIGTERM: 15, SIGINT: 2 })))
    process.once(signal, () => process.exit(128 + number));
  for (const app of WITH_DATABASE) await import(`../dist/apps/${app}/src/migrate.js`);
}
