/** Whether secrets can be guessed. Nothing here ever shows one. */
import { type Finding, finding, ok } from './finding.js';

/** Bits below which a secret of that length is no random one. Random hexadecimal of 32 characters has some 120. */
const ENOUGH_BITS = 80;
/** The same for a password, which a server lets nobody try millions of times a second. */
const ENOUGH_PASSWORD_BITS = 50;

/** Words of secrets that were meant to be replaced. */
const PLACEHOLDERS =
  /change.?me|replace.?me|example|placeholder|your.?(secret|password|key)|insecure|default|password|passw0rd|letmein|qwertz?y?|admin|12345678|abcdefgh|posthorn/i;

/** What is wrong with a secret, as the end of a sentence; undefined where nothing is. */
export function weaknessOf(secret: string, enoughBits = ENOUGH_BITS): string | undefined {
  const word = PLACEHOLDERS.exec(secret)?.[0];
  if (word !== undefined && estimatedBits(secret.replace(PLACEHOLDERS, '')) < enoughBits)
    return 'is made of a word that everybody tries';
  const bits = estimatedBits(secret);
  if (bits < enoughBits)
    return `is ${secret.length} characters that hold about ${Math.round(bits)} bits, and wants ${enoughBits}`;
  return undefined;
}

/**
 * How hard a text is to guess, in bits: by how often each character is followed by one that the text did not foretell.
 * Shannon's entropy of its characters, counting runs, steps (abc, 321) and repetitions of what came before once.
 */
export function estimatedBits(text: string): number {
  const characters = [...text];
  const counts = new Map<string, number>();
  for (const character of characters) counts.set(character, (counts.get(character) ?? 0) + 1);
  let perCharacter = 0;
  for (const count of counts.values()) {
    const share = count / characters.length;
    perCharacter -= share * Math.log2(share);
  }
  return perCharacter * unforeseen(characters);
}

/** Characters that neither repeat the step before them, nor stand in a repetition of four or more that came before. */
function unforeseen(characters: readonly string[]): number {
  const text = characters.join('');
  let count = 0;
  for (let index = 0; index < characters.length; index++) {
    const step = stepAt(characters, index);
    if (step !== undefined && Math.abs(step) <= 1 && step === stepAt(characters, index - 1)) continue;
    const last = characters.slice(Math.max(0, index - 3), index + 1).join('');
    if (index >= 4 && text.indexOf(last) < index - 3) continue;
    count += 1;
  }
  return count;
}

function stepAt(characters: readonly string[], index: number): number | undefined {
  const [before, here] = [characters[index - 1], characters[index]];
  if (before === undefined || here === undefined) return undefined;
  return (here.codePointAt(0) as number) - (before.codePointAt(0) as number);
}

/** The part of a configuration that signs and seals. */
export interface SigningSecrets {
  readonly jwtSecret: string | undefined;
  /** One, or several separated by commas. */
  readonly keySecret: string;
  readonly jwksUrl: string | undefined;
}

const NEW_SECRET =
  'Make another with `openssl rand -hex 32` (or `npm run secrets` for a new installation) and give it to gateway and auth';

/** JWT_SECRET, KEY_SECRET and JWKS_URL. Outside production what is wrong is a warning. */
export function signingFindings(
  { jwtSecret, keySecret, jwksUrl }: SigningSecrets,
  production: boolean,
): Finding[] {
  const severity = production ? 'failure' : 'warning';
  const keys = keySecret.split(',').map((key) => key.trim());
  const named = [
    ...(jwtSecret === undefined ? [] : [{ name: 'JWT_SECRET', secret: jwtSecret }]),
    ...keys
      .filter((key) => key !== '')
      .map((secret, index) => ({ name: `KEY_SECRET${index > 0 ? ` number ${index + 1}` : ''}`, secret })),
  ];
  const weak = named.flatMap(({ name, secret }) => {
    const weakness = weaknessOf(secret);
    return weakness === undefined
      ? []
      : [
          finding(
            'secrets.signing',
            severity,
            `${name} ${weakness}`,
            name === 'JWT_SECRET'
              ? `${NEW_SECRET}, and to whoever signs tokens. Those that are signed with the old one end.`
              : `${NEW_SECRET} in its place, without keeping it for a while: who guesses it could go on. Clients fetch new keys.`,
          ),
        ];
  });
  const same = jwtSecret !== undefined && keys.includes(jwtSecret);
  return [
    ...(weak.length > 0
      ? weak
      : [ok('secrets.signing', `${named.map(({ name }) => name).join(', ')}: long and random`)]),
    ...(jwtSecret === undefined
      ? []
      : [
          same
            ? finding(
                'secrets.distinct',
                severity,
                'JWT_SECRET is also a KEY_SECRET',
                `${NEW_SECRET}, as KEY_SECRET.`,
              )
            : ok('secrets.distinct', 'JWT_SECRET and KEY_SECRET differ'),
        ]),
    ...(jwksUrl === undefined ? [] : [jwksFinding(jwksUrl)]),
  ];
}

function jwksFinding(jwksUrl: string): Finding {
  const { protocol, host, hostname } = new URL(jwksUrl);
  if (protocol === 'https:') return ok('secrets.jwks', `JWKS_URL is https://${host}`);
  if (isLoopback(hostname)) return ok('secrets.jwks', `JWKS_URL is on this machine, ${host}`);
  return finding(
    'secrets.jwks',
    'warning',
    `JWKS_URL is http://${host}`,
    'Give the https:// address of the provider.',
  );
}

/**
 * The passwords that an app logs in with.
 * @param passwords by the variable that each is in
 */
export function passwordFindings(passwords: Readonly<Record<string, string | undefined>>): Finding[] {
  const given = Object.entries(passwords).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const weak = given.flatMap(([name, password]) => {
    const weakness = weaknessOf(password, ENOUGH_PASSWORD_BITS);
    return weakness === undefined ? [] : [`the password in ${name} ${weakness}`];
  });
  if (weak.length > 0)
    return [
      finding(
        'secrets.passwords',
        'warning',
        weak.join('; '),
        'Give the user another password, such as `openssl rand -hex 24` prints, on the server and to the app.',
      ),
    ];
  return given.length > 0
    ? [ok('secrets.passwords', `${given.map(([name]) => name).join(', ')}: hard to guess`)]
    : [];
}

/** The password in a URL; undefined where there is none. */
export function passwordIn(url: string | undefined): string | undefined {
  if (url === undefined) return undefined;
  for (const one of url.split(',')) {
    if (!URL.canParse(one.trim())) continue;
    const { username, password } = new URL(one.trim());
    // A token of NATS stands where the user does.
    const secret = password || (/^(nats|tls):/.test(one.trim()) ? username : '');
    if (secret) return decoded(secret);
  }
  return undefined;
}

/** As the driver of PostgreSQL has it, which takes a percent sign that encodes nothing for itself. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Whether a host is this machine. */
export function isLoopback(hostname: string): boolean {
  return /^(localhost|.+\.localhost|127(\.\d+){3}|\[?::1\]?)$/i.test(hostname);
}
