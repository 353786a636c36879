import { Input, Label, TextArea, TextField } from "react-aria-components";

interface Props {
  label: string;
  value: string;
  onChange: (value: string) => void;
  name: string;
  secret?: boolean;
  long?: boolean;
}

/** A labelled field that must be filled in. */
export function Field({ label, value, onChange, name, secret = false, long = false }: Props) {
  return (
    <TextField
      className="field"
      value={value}
      onChange={onChange}
      name={name}
      type={secret ? "password" : "text"}
      autoComplete="off"
      isRequired
    >
      <Label>{label}</Label>
      {long ? <TextArea rows={3} /> : <Input />}
    </TextField>
  );
}
