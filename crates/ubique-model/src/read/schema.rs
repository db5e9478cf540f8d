//! JSON Schemas (draft 2020-12) of the user files, made from the descriptions that drive the parser.

use serde_json::{Map, Value, json};

use super::MAX_TEXT_CHARS;
use super::spec::{Field, Need, Spec, Type, Variant};
use crate::quantity::format_duration;

/// Schema of the service file.
pub fn service_schema() -> Value {
    document("ubique service file", &crate::service::spec::FILE)
}

/// Schema of the scenario file.
pub fn scenario_schema() -> Value {
    document("ubique scenario file", &crate::scenario::spec::FILE)
}

/// Schema of the Internet file.
pub fn internet_schema() -> Value {
    document("ubique Internet file", &crate::internet::spec::FILE)
}

fn document(title: &str, spec: &Spec) -> Value {
    let mut schema = table(spec);
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!(title);
    schema
}

fn table(spec: &Spec) -> Value {
    let Some(variants) = spec.variants else {
        return object(spec.doc, spec.fields.iter());
    };
    let alternatives: Vec<Value> = variants
        .list
        .iter()
        .map(|variant| {
            let mut schema = object(variant.doc, spec.fields.iter().chain(variant.fields));
            schema["properties"][variants.tag] = tag(spec, variants.tag, variant);
            schema
        })
        .collect();
    json!({ "description": spec.doc, "type": "object", "oneOf": alternatives })
}

fn tag(spec: &Spec, key: &str, variant: &Variant) -> Value {
    let doc = spec.fields.iter().find(|f| f.key == key).map_or("", |f| f.doc);
    json!({ "const": variant.name, "description": format!("{doc} {}", variant.doc) })
}

fn object<'f>(doc: &str, fields: impl Iterator<Item = &'f Field> + Clone) -> Value {
    let properties: Map<String, Value> = fields.clone().map(|f| (f.key.to_owned(), property(f))).collect();
    let required: Vec<&str> = fields.filter(|f| matches!(f.need, Need::Required)).map(|f| f.key).collect();
    let mut schema = json!({
        "description": doc,
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = value(&field.ty);
    let mut doc = field.doc.to_owned();
    match field.need {
        Need::Text(text) => schema["default"] = json!(text),
        Need::Integer(number) => schema["default"] = json!(number),
        Need::Described(what) => doc = format!("{doc} Default: {what}."),
        Need::Required | Need::Optional => {}
    }
    schema["description"] = json!(doc);
    schema
}

fn value(ty: &Type) -> Value {
    match ty {
        Type::Text(format) => {
            let mut schema = json!({
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_TEXT_CHARS,
                "examples": [format.example],
            });
            if let Some(pattern) = format.pattern {
                schema["pattern"] = json!(pattern);
            }
            schema
        }
        Type::Duration { min, max } => json!({
            "type": "string",
            "pattern": "^ *[0-9]+(\\.[0-9]+)? *(ns|us|µs|μs|ms|s|m|h)$",
            "examples": ["100ms", "2s"],
            "$comment": format!("{} to {}", format_duration(*min), format_duration(*max)),
        }),
        Type::Integer { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Type::Asn => {
            json!({ "type": "integer", "minimum": 1, "maximum": 4_294_967_294_u32, "examples": [64500] })
        }
        Type::AsnOr(words) => json!({ "oneOf": [value(&Type::Asn), value(&Type::Choice(words))] }),
        Type::Boolean => json!({ "type": "boolean" }),
        Type::Choice(words) => json!({ "type": "string", "enum": words }),
        Type::Tag => json!({ "type": "string" }),
        Type::List { item, min, max } => {
            json!({ "type": "array", "items": value(item), "minItems": min, "maxItems": max })
        }
        Type::Scalar { format, min, max } => {
            json!({ "oneOf": [value(&Type::Integer { min: *min, max: *max }), value(&Type::Text(format))] })
        }
        Type::OneOrMore { item, max } => {
            json!({ "oneOf": [value(item), value(&Type::List { item, min: 1, max: *max })] })
        }
        Type::Map { value: format, max } => json!({
            "type": "object",
            "additionalProperties": value(&Type::Text(format)),
            "maxProperties": max,
        }),
        Type::Table(spec) => table(spec),
        Type::Switch(spec) => json!({ "oneOf": [{ "type": "boolean" }, table(spec)] }),
        Type::Tables { spec, max } => {
            json!({ "type": "array", "items": table(spec), "maxItems": max })
        }
    }
}

#[cfg(test)]
mod tests;
