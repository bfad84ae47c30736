import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const generator = fileURLToPath(new URL('./generator.mjs', import.meta.url));

/** @typedef {import('./generator.mjs').Commands} Commands */

/** A generator, and the commands that it takes. It ends with this process, however that ends. */
export class GeneratorProcess {
  #child;
  /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */
  #asked = new Map();
  #questions = 0;

  /** @param {string} [program] one that takes the same commands */
  constructor(program = generator) {
    this.#child = fork(program);
    this.#child.on('message', (/** @type {{ id: number, result?: unknown, error?: string }} */ answer) => {
      const { resolve, reject } = this.#asked.get(answer.id) ?? {};
      this.#asked.delete(answer.id);
      if (answer.error === undefined) resolve?.(answer.result);
      else reject?.(new Error(answer.error));
    });
    this.#child.on('exit', (code, signal) => {
      for (const { reject } of this.#asked.values()) {
        reject(new Error(`The load generator ended (${signal ?? code})`));
      }
    });
  }

  get pid() {
    return this.#child.pid ?? 0;
  }

  /**
   * @template {keyof Commands} Name
   * @param {Name} name
   * @param {Parameters<Commands[Name]>} args
   * @returns {ReturnType<Commands[Name]>}
   */
  ask(name, ...args) {
    const id = this.#questions++;
    const answer = new Promise((resolve, reject) => this.#asked.set(id, { resolve, reject }));
    this.#child.send({ id, name, args: args[0] });
    return /** @type {ReturnType<Commands[Name]>} */ (answer);
  }

  async end() {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.kill('SIGKILL');
    await once(this.#child, 'exit');
  }
}
