import i18next from "i18next";
import { initReactI18next } from "react-i18next";
import en from "./en.json";

void i18next.use(initReactI18next).init({
  resources: { en: { translation: en } },
  lng: "en",
  fallbackLng: "en",
  // React escapes.
  interpolation: { escapeValue: false },
});

/** A moment in the person's own format. */
export function moment(millis: number): string {
  return new Date(millis).toLocaleString(i18next.language);
}

/** A number with separators. */
export function count(value: number): string {
  return value.toLocaleString(i18next.language);
}
