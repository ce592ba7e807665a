package peft

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// hfConfig are the fields of adapter_config.json that decide what the tensors mean.
type hfConfig struct {
	Type      string  `json:"peft_type"`
	Base      *string `json:"base_model_name_or_path"`
	Bias      string  `json:"bias,omitempty"`
	Inference bool    `json:"inference_mode"`
	// LoRA's, and for LoHa and LoKr.
	R            int      `json:"r"`
	LoRAAlpha    *float64 `json:"lora_alpha,omitempty"`
	Alpha        *float64 `json:"alpha,omitempty"`
	RankPattern  ordered  `json:"rank_pattern"`
	AlphaPattern ordered  `json:"alpha_pattern"`
	Stabilised   bool     `json:"use_rslora,omitempty"`
	DoRA         bool     `json:"use_dora,omitempty"`
	FanInOut     bool     `json:"fan_in_fan_out,omitempty"`
	// Start is how LoRA's factors were initialised: true, false or a name.
	Start json.RawMessage `json:"init_lora_weights,omitempty"`
	// LoHa's and LoKr's.
	Effective bool            `json:"use_effective_conv2d,omitempty"`
	Both      bool            `json:"decompose_both,omitempty"`
	Factor    int             `json:"decompose_factor,omitempty"`
	Modules   []string        `json:"modules_to_save"`
	Target    json.RawMessage `json:"target_modules"`
	TaskType  *string         `json:"task_type"`
}

// ordered is a JSON object of numbers whose order counts: the first key that matches a
// module's name decides.
type ordered []pattern

type pattern struct {
	key   string
	value float64
	re    *regexp.Regexp // of compile
}

// Bounds on the patterns of a file: of a network of a thousand layers there may be one a
// layer.
const (
	mostPatterns = 1 << 14
	mostPattern  = 4 << 10
	mostText     = 1 << 20
)

// compile compiles the patterns, once for all modules.
func (c *hfConfig) compile() error {
	text := 0
	for _, o := range []ordered{c.RankPattern, c.AlphaPattern} {
		if len(o) > mostPatterns {
			return fmt.Errorf("%w: %s: %d patterns; at most %d are read", ErrFile, peftConfig, len(o), mostPatterns)
		}
		for i := range o {
			if err := o[i].compile(); err != nil {
				return err
			}
			text += len(o[i].key)
		}
	}
	if text > mostText {
		return fmt.Errorf("%w: %s: patterns of %d bytes; at most %d are read", ErrFile, peftConfig, text, mostText)
	}
	return nil
}

func (p *pattern) compile() (err error) {
	if len(p.key) > mostPattern {
		return fmt.Errorf("%w: pattern %s of %d bytes; at most %d are read", ErrFile, short(p.key), len(p.key), mostPattern)
	}
	if regexp.QuoteMeta(strings.ReplaceAll(p.key, ".", "")) == strings.ReplaceAll(p.key, ".", "") {
		return nil // a plain name, in which a dot may stand for any character
	}
	if p.re, err = regexp.Compile(`^(?:.*\.)?(?:` + p.key + `)$`); err != nil {
		return fmt.Errorf("%w: pattern %s: %w", ErrFile, short(p.key), err)
	}
	return nil
}

// matches reports whether the pattern, as a regular expression, matches a module's name or
// what follows a dot in it.
func (p *pattern) matches(module string) bool {
	if p.re != nil {
		return p.re.MatchString(module)
	}
	at := len(module) - len(p.key)
	if at < 0 || at > 0 && module[at-1] != '.' {
		return false
	}
	for i := range len(p.key) {
		if c := p.key[i]; c != '.' && c != module[at+i] || module[at+i] == '\n' {
			return false
		}
	}
	return true
}

// start is the start that has to be taken out of the learned product again, nil where the
// base was left as it is. The error names one that cannot be computed.
func (c *hfConfig) start() (start, error) {
	var name string
	if c.Type != "LORA" || json.Unmarshal(c.Start, &name) != nil {
		return nil, nil // LoHa's and LoKr's, and true, false and null, leave the base alone
	}
	switch name := strings.ToLower(name); name {
	case "", "gaussian", "eva", "orthogonal", "mica":
		return nil, nil
	case "pissa":
		return pissa, nil
	case "olora":
		return olora, nil
	}
	return nil, fmt.Errorf("%w: %s: init_lora_weights %s: such a start changes the base's kernels, by what cannot be computed again of the base alone; save the adapter with path_initial_model_for_weight_conversion, which makes a plain LoRA of it", ErrFile, peftConfig, short(name))
}

// UnmarshalJSON reads an object or null.
func (o *ordered) UnmarshalJSON(text []byte) error {
	*o = nil
	dec := json.NewDecoder(bytes.NewReader(text))
	t, err := dec.Token()
	if err != nil || t == nil {
		return err
	}
	if t != json.Delim('{') {
		return fmt.Errorf("%s where an object of numbers is wanted", text)
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return err
		}
		var p pattern
		p.key, _ = t.(string)
		if err := dec.Decode(&p.value); err != nil {
			return err
		}
		if *o = append(*o, p); len(*o) > mostPatterns {
			return fmt.Errorf("%w: more than %d patterns", ErrFile, mostPatterns)
		}
	}
	return nil
}

// MarshalJSON writes an object.
func (o ordered) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range o {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(p.key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(p.value)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// of is the value for a module: that of the first key that matches its name.
func (o ordered) of(module string, otherwise float64) (float64, error) {
	for i := range o {
		p := &o[i]
		if p.key == module || p.matches(module) {
			return p.value, nil
		}
	}
	return otherwise, nil
}

// exact is a pattern that matches one of the modules alone: its name, which PEFT until
// 0.14 looked up where no pattern matched, or, where that would match another module
// whose name ends with it, what later versions take only at the beginning.
func exact(module string, modules []Module) string {
	plain := ordered{{key: module, value: 1}}
	for _, m := range modules {
		if v, err := plain.of(m.Name, 0); err != nil || v != 0 && m.Name != module {
			return "^" + regexp.QuoteMeta(module)
		}
	}
	return module
}

// MatchTarget reports whether PEFT's target_modules, given as JSON, name a module: a
// list has names, or what follows a dot in them; a string is a regular expression for
// the whole name. The error wraps ErrFile.
func MatchTarget(target json.RawMessage, module string) (bool, error) {
	var list []string
	if err := json.Unmarshal(target, &list); err == nil {
		return slices.ContainsFunc(list, func(e string) bool { return module == e || strings.HasSuffix(module, "."+e) }), nil
	}
	var text string
	if err := json.Unmarshal(target, &text); err != nil {
		return false, fmt.Errorf("%w: target_modules %s: want a list or a regular expression", ErrFile, target)
	}
	re, err := regexp.Compile(`^(?:` + text + `)$`)
	if err != nil {
		return false, fmt.Errorf("%w: target_modules %q: %w", ErrFile, text, err)
	}
	return re.MatchString(module), nil
}

// scale is λ of a module: PEFT does not store it.
func (c *hfConfig) scale(module string, rank int) (float64, error) {
	r, err := c.RankPattern.of(module, float64(c.R))
	if err != nil {
		return 0, err
	}
	if rank > 0 && float64(rank) != r {
		return 0, fmt.Errorf("%w: a rank of %g by %s, of %d in the tensors", ErrFile, r, peftConfig, rank)
	}
	of, alpha := c.LoRAAlpha, 8.
	if c.Type != "LORA" {
		of = c.Alpha
	}
	if of != nil {
		alpha = *of
	}
	if alpha, err = c.AlphaPattern.of(module, alpha); err != nil {
		return 0, err
	}
	if r < 1 || r != float64(int(r)) {
		return 0, fmt.Errorf("%w: a rank of %g by %s", ErrFile, r, peftConfig)
	}
	return AlphaOverRank(alpha, int(r), c.Stabilised), nil
}

// choices sets the fields of LoHa and LoKr that all modules share.
func (c *hfConfig) choices(modules []Module) {
	if c.Type == "LORA" {
		return
	}
	for _, m := range modules {
		c.Effective = c.Effective || m.spec.Mid
		c.Both = c.Both || m.spec.Both
	}
	if c.Type == "LOKR" {
		c.Factor = commonFactor(modules)
	}
}

// first sets the fields that all modules share from the first.
func (c *hfConfig) first(d *Delta, rank int, al float64) {
	c.R, c.DoRA = rank, d.spec.DoRA
	if c.Type == "LORA" {
		c.LoRAAlpha = &al
	} else {
		c.Alpha = &al
	}
}

func (c *hfConfig) alphaValue() float64 {
	if c.Type == "LORA" {
		return *c.LoRAAlpha
	}
	return *c.Alpha
}

// fits reports what PEFT would lay out otherwise than d has it.
func (c *hfConfig) fits(d *Delta) error {
	s := d.spec
	if s.DoRA != c.DoRA {
		return fmt.Errorf("%w: learned norms here and not in other modules", ErrLossy)
	}
	if c.Type == "LORA" {
		return nil
	}
	if s.DoRA {
		return fmt.Errorf("%w: PEFT has no learned norms of %s", ErrLossy, s.Kind)
	}
	core := s.Kind == LoHa // where PEFT has a core of taps
	if s.Kind == LoKr {
		if peftSplit(s.Shape, c.Factor) != s.split() {
			return fmt.Errorf("%w: a first factor of %v of a kernel of %v, which no decompose_factor gives in all modules", ErrLossy, s.split(), s.Shape)
		}
		one, two := s.low(d.peftRank(), c.Both)
		if one != s.Both || two != (len(s.Rank) > 0) {
			return fmt.Errorf("%w: PEFT has factors of rank %d of %v and %d only where that is below half of their larger side, and then in all modules", ErrLossy, d.peftRank(), s.split(), s.seconds())
		}
		core = two
	}
	if core = core && s.Shape[2]*s.Shape[3] > 1 && c.Effective; s.Mid != core {
		return fmt.Errorf("%w: a core of taps that PEFT would not have, or none where it would", ErrLossy)
	}
	return nil
}
