/** The end of a `GeneratorProcess` that is in the process itself. */

/**
 * Answers what the parent asks for, and ends with it.
 * @param {Record<string, (args: any) => Promise<unknown>>} commands
 */
export function answerCommands(commands) {
  process.on(
    'message',
    async (/** @type {{ id: number, name: string, args: unknown }} */ { id, name, args }) => {
      try {
        process.send?.({ id, result: await commands[name]?.(args) });
      } catch (error) {
        process.send?.({ id, error: error instanceof Error ? error.message : String(error) });
      }
    },
  );
  process.on('disconnect', () => process.exit());
  // A Ctrl-C in the terminal is for whoever started this process.
  process.on('SIGINT', () => {});
}
