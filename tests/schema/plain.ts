// A type as JSON has it: where it asks for an enum, the enum's values.
export type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
