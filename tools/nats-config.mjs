/**
 * Prints the nats-server configuration of accounts, users and permissions: to be included in the server's own.
 * The configuration goes to standard output, and nothing else does. Ends with 2 where the options are not understood.
 */
import { build } from './build.mjs';
import { built } from './checkout.mjs';
import { readOptions, runCommand, UsageError } from './terminal.mjs';

const usage = `npm run -s nats-config -- [options] > accounts.conf

  --audience <name>            an audience whose publishers connect to NATS, each in an account of its own
  --audiences <name>,<name>…   several of them
  --service <name>             an internal service with the server SDK (its name is its source), for all audiences
  --service <name>@<audience>  one for one audience
  --operator                   also a user "operator" with all rights, for the nats tool
  --secrets <file>             the variables are in this file beside it, as NAME: "value", and not in the environment
  --nkeys                      users with nkeys instead of passwords
  --variables                  prints "<user> <variable>" of each user instead: what the server has to be given

--audience and --service may be given several times. The configuration holds no secret: the server reads each password
(or public nkey) from its environment, where it begins with a letter and has letters, digits, - and _ only, or from the
file of --secrets, which has these variables and no others. A file is read again at a reload.`;

await runCommand('nats-config', run);

async function run() {
  const { values, positionals } = readOptions(process.argv.slice(2), {
    audience: { type: 'string', multiple: true },
    audiences: { type: 'string' },
    service: { type: 'string', multiple: true },
    secrets: { type: 'string' },
    operator: { type: 'boolean' },
    nkeys: { type: 'boolean' },
    variables: { type: 'boolean' },
    help: { type: 'boolean' },
  });
  if (values.help || positionals[0] === 'help') {
    console.log(usage);
    return;
  }
  if (positionals.length > 0) throw new UsageError(`What is ${positionals[0]}?`);
  const { text, logins } = await configured({
    audiences: [...(values.audience ?? []), ...listed(values.audiences)],
    services: (values.service ?? []).map(serviceOf),
    ...(values.secrets && { secrets: values.secrets }),
    login: values.nkeys ? 'nkey' : 'password',
    operator: values.operator ?? false,
  });
  if (values.variables) for (const { user, variable } of logins) console.log(`${user} ${variable}`);
  else process.stdout.write(text);
}

/** @param {import('../libs/contracts/src/nats-config.js').NatsConfigOptions} options */
async function configured(options) {
  await build({ quiet: true });
  const { natsConfig } = await built('libs/contracts/src/index.js');
  try {
    return natsConfig(options);
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/** @param {string | undefined} names */
function listed(names) {
  return (names ?? '')
    .split(',')
    .map((name) => name.trim())
    .filter((name) => name !== '');
}

/** @param {string} text `<name>` or `<name>@<audience>` */
function serviceOf(text) {
  const at = text.indexOf('@');
  return at === -1
    ? { name: text, audience: null }
    : { name: text.slice(0, at), audience: text.slice(at + 1) };
}
