import { hello } from '@posthorn/contracts';
console.log(hello);
