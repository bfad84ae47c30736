import { availableParallelism } from 'node:os';

/** Jest in ESM mode: TypeScript goes through swc, path aliases are those of tsconfig.json. */
/** @param {string} name */
const lib = (name) => [`^@posthorn/${name}$`, `<rootDir>/libs/${name}/src/index.ts`];

export default {
  testEnvironment: 'node',
  // Specs spend much of their time waiting for servers of their own: also two cores have time for two of them.
  maxWorkers: Math.max(2, Math.floor(availableParallelism() / 2)),
  testMatch: ['<rootDir>/{apps,libs,test,tools,bench}/**/*.spec.ts'],
  modulePathIgnorePatterns: ['<rootDir>/dist/', '<rootDir>/.posthorn/'],
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: {
    ...Object.fromEntries(['contracts', 'bus', 'client', 'service', 'database', 'testing'].map(lib)),
    '^@posthorn/bus/nest$': '<rootDir>/libs/bus/src/nest/index.ts',
    '^@posthorn/bus/platform$': '<rootDir>/libs/bus/src/platform.ts',
    '^(\\.{1,2}/.*)\\.js$': '$1',
  },
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      {
        jsc: {
          target: 'es2022',
          parser: { syntax: 'typescript', decorators: true },
          transform: { legacyDecorator: true, decoratorMetadata: true, useDefineForClassFields: false },
          keepClassNames: true,
        },
        module: { type: 'es6' },
      },
    ],
  },
  testTimeout: 60_000,
};
