// Earlier turns that show a small model how a tool is called.
export const CITIES = ["Rome", "Oslo", "Madrid", "Berlin"];
export const QUESTION = { role: "user", content: "Weather in Paris?" };
export const sunny = (city) => `Sunny in ${city}.`;
